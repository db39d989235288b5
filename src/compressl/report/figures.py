"""Curves over the training, and accuracies with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compressl.measures.intervals import Estimate
from compressl.report.axes import dashes
from compressl.report.reading import Series
from compressl.report.svg import (
    GRID,
    INK,
    MUTED,
    color,
    compact,
    figure_of,
    name_ends,
    percentage,
    significant,
    style,
    to_svg,
    write,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 240  # of a curve; longer series are shown as mean and range of bins


@dataclass(frozen=True)
class Curve:
    """One run's values in a panel."""

    label: str
    """At the end of the curve; nothing for a run alone."""
    color: int
    values: Series


@dataclass(frozen=True)
class Bar:
    """One representation in an interval plot; ``color`` None for a baseline."""

    label: str
    color: int | None
    estimate: Estimate


def curves(
    name: str,
    lines: Sequence[Curve],
    *,
    alt: str,
    xlabel: str,
    ylabel: str,
    log: bool = False,
    share: bool = False,
    zero: bool = False,
    reference: tuple[float, str] | None = None,
) -> str:
    """Curves over steps, each named at its end.

    Args:
        name: of the figure, unique in the page.
        share: values are shares and shown as percentages.
        zero: the axis begins at 0, if no value lies below.
        reference: a dashed horizontal line and its name.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    with style():
        figure, axes = figure_of(4.0, 2.35)
        for line in lines:
            _draw(axes, line)
        if reference is not None:
            axes.axhline(reference[0], color=MUTED, linewidth=0.9, dashes=(4, 3))
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: compact(v)))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.tick_params(axis="y", which="minor", size=0)
        else:
            axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: compact(v, share=share)))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: compact(v)))
        axes.set_xlim(left=0)
        if zero and min(value for line in lines for _, value in line.values) >= 0:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(xlabel)
        axes.set_title(ylabel, loc="left", fontsize=9.5, color=MUTED, pad=8)
        ends = [(line.label, reduce(line.values)[1][-1], color(line.color)) for line in lines if line.label]
        ends += [(reference[1], reference[0], MUTED)] if reference else []
        widest = max((len(label) for label, _, _ in ends), default=0)
        figure.subplots_adjust(left=0.115, right=0.97 - 0.0185 * widest - 0.01 * bool(widest), top=0.87, bottom=0.2)
        name_ends(figure, axes, ends)
        return to_svg(figure, name, alt)


def intervals(name: str, bars: Sequence[Bar], *, alt: str, chance: float | None) -> str:
    """Accuracies with their intervals, one row each, named above its line."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with style({"axes.grid": False}):
        height = 0.36 * len(bars) + 0.5
        figure, axes = figure_of(4.0, height)
        lows = [bar.estimate.low for bar in bars] + ([] if chance is None else [chance])
        low, high = min(lows), max(bar.estimate.high for bar in bars)
        margin = 0.06 * max(high - low, 0.02)
        left = max(0.0, low - margin)
        for i, bar in enumerate(bars):
            y, shade = -float(i), color(bar.color)
            estimate = bar.estimate
            start = left if chance is None else chance
            axes.plot([start, estimate.value], [y, y], color=GRID, linewidth=1, solid_capstyle="butt")
            axes.plot(
                [estimate.low, estimate.high], [y, y], color=shade, linewidth=6, alpha=0.35, solid_capstyle="butt"
            )
            axes.plot([estimate.value], [y], marker="o", markersize=5.5, color=shade, markeredgewidth=0)
            edge = ("axes fraction", "data")
            write(axes, bar.label, (0, y), (0, 6), edge, color=INK)
            write(axes, f"{100 * estimate.value:.1f}", (1, y), (0, 6), edge, color=INK, ha="right", fontweight="bold")
            if chance is not None:
                axes.plot([chance, chance], [y - 0.11, y + 0.11], color=MUTED, linewidth=1)
        if chance is not None:
            write(axes, "chance", (chance, 1 - len(bars)), (-1, -14), ("data", "data"), color=MUTED)
        axes.set_xlim(left, min(1.0, high + margin) if high < 1 else 1 + margin / 2)
        axes.set_ylim(-len(bars) + 0.4, 0.8)
        axes.yaxis.set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: compact(v, share=True)))
        figure.subplots_adjust(left=0.004, right=0.996, top=1 - 0.02 / height, bottom=0.27 / height)
        return to_svg(figure, name, alt)


def reduce(values: Series, most: int = POINTS) -> tuple[Any, Any, Any, Any]:
    """Steps, means, minima and maxima of equal bins, at most ``most`` of them.

    >>> [list(map(float, part)) for part in reduce([(1, 1.0), (2, 3.0), (3, 5.0), (4, 7.0)], 2)]
    [[1.5, 3.5], [2.0, 6.0], [1.0, 5.0], [3.0, 7.0]]
    """
    x, y = np.array(values, dtype=float).T
    starts = np.linspace(0, len(x), min(most, len(x)), endpoint=False).astype(int)
    counts = np.diff([*starts, len(x)])
    means = [np.add.reduceat(part, starts) / counts for part in (x, y)]
    return means[0], means[1], np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)


def _draw(axes: Axes, line: Curve) -> None:
    x, mean, low, high = reduce(line.values)
    shade = color(line.color)
    marker = "o" if len(x) < 12 else None
    if len(line.values) > len(x):
        axes.fill_between(x, low, high, color=shade, alpha=0.16, linewidth=0)
    axes.plot(x, mean, color=shade, marker=marker, markersize=3.5, markeredgewidth=0, dashes=dashes(line.color, False))


def describe(values: Series, *, share: bool = False) -> str:
    """A curve in words, for those who do not see it."""
    first, last = (percentage(v) if share else significant(v) for v in (values[0][1], values[-1][1]))
    return f"from {first} to {last}"

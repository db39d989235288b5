"""Figures as inline SVG that takes its font and colors from the page.

matplotlib draws with sentinel colors; they become CSS variables, so that one figure serves light, dark and print.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from compressl.measures.intervals import Estimate
from compressl.report.reading import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = 6  # of runs, --run-0 to --run-5; later runs take them again, dashed
POINTS = 240  # of a curve; longer series are shown as mean and range of bins
INK, MUTED, GRID = "#010203", "#010204", "#010205"
RUNS = [f"#0102{16 + i:02x}" for i in range(COLORS)]
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {c: f"--run-{i}" for i, c in enumerate(RUNS)}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "compressl",
    "text.parse_math": False,
    "text.color": INK,
    "font.size": 9.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "xtick.major.size": 3,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}


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


def color(index: int | None) -> str:
    """The sentinel of a run's color."""
    return MUTED if index is None else RUNS[index % COLORS]


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

    with _style():
        figure, axes = _figure(4.0, 2.35)
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
        _name_ends(figure, axes, ends)
        return _svg(figure, name, alt)


def intervals(name: str, bars: Sequence[Bar], *, alt: str, chance: float | None) -> str:
    """Accuracies with their intervals, one row each, named above its line."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with _style({"axes.grid": False}):
        height = 0.36 * len(bars) + 0.5
        figure, axes = _figure(4.0, height)
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
            _write(axes, bar.label, (0, y), (0, 6), edge, color=INK)
            _write(axes, f"{100 * estimate.value:.1f}", (1, y), (0, 6), edge, color=INK, ha="right", fontweight="bold")
            if chance is not None:
                axes.plot([chance, chance], [y - 0.11, y + 0.11], color=MUTED, linewidth=1)
        if chance is not None:
            _write(axes, "chance", (chance, 1 - len(bars)), (-1, -14), ("data", "data"), color=MUTED)
        axes.set_xlim(left, min(1.0, high + margin) if high < 1 else 1 + margin / 2)
        axes.set_ylim(-len(bars) + 0.4, 0.8)
        axes.yaxis.set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: compact(v, share=True)))
        figure.subplots_adjust(left=0.004, right=0.996, top=1 - 0.02 / height, bottom=0.27 / height)
        return _svg(figure, name, alt)


def compact(value: float, *, share: bool = False) -> str:
    """A tick without wasted digits.

    >>> compact(12000), compact(2.5e6), compact(0.25, share=True), compact(-0.5), compact(0.0)
    ('12k', '2.5M', '25 %', '−0.5', '0')
    """
    if share:
        return f"{round(100 * value, 6):g} %".replace("-", "−")
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}".replace("-", "−")
    return f"{round(value, 10):g}".replace("-", "−")


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
    dashes = (5, 2) if line.color >= COLORS else (None, None)
    if len(line.values) > len(x):
        axes.fill_between(x, low, high, color=shade, alpha=0.16, linewidth=0)
    axes.plot(x, mean, color=shade, marker=marker, markersize=3.5, markeredgewidth=0, dashes=dashes)


def _name_ends(figure: Figure, axes: Axes, ends: Sequence[tuple[str, float, str]]) -> None:
    """Names (text, height, color) at the ends of the curves, moved apart where they would overlap."""
    if not ends:
        return
    bottom, top = axes.transAxes.transform([(0, 0), (0, 1)])[:, 1]
    heights = [float(axes.transData.transform((1, value))[1]) for _, value, _ in ends]
    order = sorted(range(len(ends)), key=lambda i: -heights[i])
    gap = 11 * figure.dpi / 72
    places: list[float] = []
    for i in order:
        places.append(min(heights[i], places[-1] - gap) if places else min(heights[i], top))
    if places[-1] < bottom:  # pushed out below: move all up again
        floor = bottom
        for k in reversed(range(len(places))):
            places[k] = max(places[k], floor)
            floor = places[k] + gap
    for i, y in zip(order, places, strict=True):
        fraction = (y - bottom) / (top - bottom)
        place = ("axes fraction", "axes fraction")
        _write(axes, ends[i][0], (1, fraction), (5, 0), place, color=ends[i][2], va="center")


def _write(
    axes: Axes, text: str, at: tuple[float, float], shift: tuple[float, float], systems: tuple[str, str], **look: Any
) -> None:
    """Text at a point of two coordinate systems, moved by points."""
    axes.annotate(text, at, shift, systems, "offset points", annotation_clip=False, **look)


def _style(more: dict[str, Any] | None = None) -> Any:
    from matplotlib import style

    return style.context(["default", STYLE | (more or {})])


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _svg(figure: Figure, name: str, alt: str) -> str:
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph that matplotlib's font lacks: the page's font draws the text
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    width, height = (round(72 * inches) for inches in figure.get_size_inches())
    drawing = re.search(r"<svg[^>]*>(.*)</svg>", buffer.getvalue(), re.DOTALL)
    assert drawing is not None
    inside = re.sub(r"<(metadata|style)\b.*?</\1>", "", drawing[1], flags=re.DOTALL)
    inside = re.sub(r"<!--.*?-->", "", inside, flags=re.DOTALL)
    inside = re.sub(r"<[^>]*>", lambda tag: _page_style(tag[0], name), inside)
    inside = re.sub(r"\s*\n\s*", "\n", inside).strip()
    return f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {width} {height}">\n{inside}\n</svg>'


def _page_style(tag: str, name: str) -> str:
    """A tag with the page's font and colors and with identifiers of its own."""
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r"#0102[0-9a-f]{2}", lambda found: f"var({VARIABLES[found[0]]})", tag)
    tag = tag.replace("xlink:href", "href").replace(' transform="rotate(-0', ' transform="rotate(0')
    return re.sub(r'(\bid="|="url\(#|\bhref="#)', rf"\g<1>{name}-", tag)


def describe(values: Series, *, share: bool = False) -> str:
    """A curve in words, for those who do not see it."""
    first, last = (percentage(v) if share else significant(v) for v in (values[0][1], values[-1][1]))
    return f"from {first} to {last}"


def percentage(share: float) -> str:
    return f"{100 * share:.1f} %".replace("-", "−")


def significant(value: float) -> str:
    """Three significant digits.

    >>> significant(1234.5), significant(0.01234), significant(-2.0)
    ('1,234', '0.0123', '−2')
    """
    text = f"{value:,.0f}" if math.fabs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−")

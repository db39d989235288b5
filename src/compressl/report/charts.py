"""What the measures are drawn with: lines with bands, points, paths, heat maps and reliability diagrams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from compressl.measures.intervals import Estimate
from compressl.report.axes import Axis, dashes, mark, scales
from compressl.report.svg import (
    GRID,
    INK,
    MUTED,
    color,
    figure_of,
    name_ends,
    place,
    style,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Spot3 = tuple[float, float, float]
Name = tuple[str, float, float, str]

WIDTH, HEIGHT = 4.0, 2.6  # inches
CELL = 0.2  # inches, of a heat map
STRONGEST = 0.5  # opacity of a cell: ink must stay legible on it in light and dark


@dataclass(frozen=True)
class Line:
    """Values over x, with a band where there are bounds."""

    label: str
    """At the end; nothing for none."""
    color: int | None
    """Of the run; None for a baseline."""
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dashed: bool = False
    hollow: Sequence[bool] | None = None
    """Points that are drawn as circles, since they say less than the others; None for no marks."""


@dataclass(frozen=True)
class Point:
    label: str
    color: int | None
    x: Estimate
    y: Estimate
    hollow: bool = False


@dataclass(frozen=True)
class Path:
    """Points in their order, named at the first and the last."""

    color: int | None
    spots: Sequence[tuple[float, float]]
    first: str
    last: str
    hollow: Sequence[bool]


def lines(name: str, drawn: Sequence[Line], x: Axis, y: Axis, *, alt: str) -> str:
    """Lines, each named at its end; ``name`` is unique in the page."""
    with style():
        figure, axes = figure_of(WIDTH, HEIGHT)
        for line in drawn:
            _line(axes, line)
        scales(axes, x, y)
        ends = [(line.label, line.y[-1], color(line.color)) for line in drawn if line.label]
        widest = max((len(label) for label, _, _ in ends), default=0)
        figure.subplots_adjust(left=0.13, right=0.97 - 0.0185 * widest - 0.01 * bool(widest), top=0.88, bottom=0.19)
        name_ends(figure, axes, ends)
        return to_svg(figure, name, alt)


def points(name: str, drawn: Sequence[Point], x: Axis, y: Axis, *, alt: str) -> str:
    """Points with bars in both directions, each with its name beside it."""
    with style({"axes.grid.axis": "both"}):
        figure, axes = figure_of(WIDTH, HEIGHT)
        for p in drawn:
            shade = color(p.color)
            axes.plot([p.x.low, p.x.high], [p.y.value] * 2, color=shade, linewidth=1.2, alpha=0.6)
            axes.plot([p.x.value] * 2, [p.y.low, p.y.high], color=shade, linewidth=1.2, alpha=0.6)
            mark(axes, p.x.value, p.y.value, shade, p.hollow, 5.5)
        axes.margins(0.16, 0.14)
        scales(axes, x, y)
        figure.subplots_adjust(left=0.13, right=0.97, top=0.88, bottom=0.19)
        taken = [spot for p in drawn for spot in ((p.x.low, p.y.value), (p.x.high, p.y.value))]
        place(figure, axes, [(p.label, p.x.value, p.y.value, color(p.color)) for p in drawn], taken)
        return to_svg(figure, name, alt)


def paths(name: str, drawn: Sequence[Path], x: Axis, y: Axis, *, alt: str) -> str:
    """Paths through a plane; a larger mark at the end."""
    with style({"axes.grid.axis": "both"}):
        figure, axes = figure_of(WIDTH, HEIGHT)
        names, starts, taken = [], [], []
        for path in drawn:
            shade = color(path.color)
            across, up = zip(*path.spots, strict=True)
            axes.plot(across, up, color=shade, linewidth=1.3, alpha=0.7, dashes=dashes(path.color, False))
            for i, (spot, hollow) in enumerate(zip(path.spots, path.hollow, strict=True)):
                mark(axes, *spot, shade, hollow, 6.5 if i == len(path.spots) - 1 else 3.5)
            names.append((path.last, *path.spots[-1], shade))
            if len(path.spots) > 1:
                starts.append((path.first, *path.spots[0], shade))
            taken += _along(path.spots)
        axes.margins(0.16, 0.16)
        scales(axes, x, y)
        figure.subplots_adjust(left=0.13, right=0.82, top=0.88, bottom=0.19)
        place(figure, axes, names + _distinct(axes, starts), taken)
        return to_svg(figure, name, alt)


def heat(
    name: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    limits: tuple[float, float],
    *,
    alt: str,
    colors: tuple[int | None, int | None],
    signed: bool = False,
    xlabel: str = "severity",
) -> str:
    """Shares in cells, in percent; the stronger the color, the higher.

    Args:
        rows: names; an empty one is a gap, whose values are not drawn.
        limits: the values of no color and of the strongest one.
        colors: of positive and of negative values.
        signed: values are differences, in points.
    """
    from matplotlib.patches import Rectangle

    with style({"axes.grid": False}):
        height = CELL * len(rows) + 0.5
        figure, axes = figure_of(WIDTH, height)
        for i, (row, cells) in enumerate(zip(rows, values, strict=True)):
            for j, value in enumerate(cells if row else ()):
                share = (abs(value) - limits[0]) / max(limits[1] - limits[0], 1e-9)
                shade, opacity = color(colors[value < 0]), STRONGEST * min(max(share, 0.0), 1.0)
                axes.add_patch(Rectangle((j, i), 0.97, 0.94, color=shade, alpha=round(opacity, 3), linewidth=0))
                text = f"{100 * value:+.0f}" if signed else f"{100 * value:.0f}"
                text = "0" if text in ("+0", "-0") else text.replace("-", "−")
                axes.text(j + 0.485, i + 0.5, text, color=INK, ha="center", va="center_baseline", fontsize=8.5)
            axes.text(-0.12, i + 0.5, row, color=MUTED, ha="right", va="center_baseline")
        axes.set_xlim(0, len(columns))
        axes.set_ylim(len(rows), 0)
        axes.yaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.set_xticks([j + 0.485 for j in range(len(columns))], columns)
        axes.tick_params(axis="x", size=0, pad=1)
        axes.set_xlabel(xlabel, labelpad=2)
        widest = max(map(len, rows))
        figure.subplots_adjust(left=0.03 + 0.0185 * widest, right=0.99, top=1 - 0.02 / height, bottom=0.42 / height)
        return to_svg(figure, name, alt)


def dots(
    name: str,
    kinds: Sequence[str],
    drawn: Sequence[tuple[int | None, Sequence[float | None], bool]],
    x: Axis,
    *,
    alt: str,
) -> str:
    """A row for each kind, a mark for each representation (color, values, hollow)."""
    with style({"axes.grid.axis": "x"}):
        height = 0.3 * len(kinds) + 0.6
        figure, axes = figure_of(WIDTH, height)
        for i, kind in enumerate(kinds):
            axes.axhline(i, color=GRID, linewidth=0.8)
            axes.text(-0.03, i, kind, color=INK, ha="right", va="center_baseline", transform=axes.get_yaxis_transform())
            for index, values, hollow in drawn:
                if (value := values[i]) is not None:
                    mark(axes, value, i, color(index), hollow, 6.0)
        scales(axes, x, Axis(""))
        axes.set_ylim(len(kinds) - 0.5, -0.6)
        axes.yaxis.set_visible(False)
        axes.set_xlabel(x.label)
        widest = max(map(len, kinds))
        figure.subplots_adjust(left=0.05 + 0.0185 * widest, right=0.97, top=1 - 0.04 / height, bottom=0.48 / height)
        return to_svg(figure, name, alt)


def reliability(name: str, before: Sequence[Spot3], after: Sequence[Spot3], shade: int | None, *, alt: str) -> str:
    """Accuracy over confidence in bins (confidence, accuracy, share of the images); before as circles."""
    with style({"axes.grid.axis": "both"}):
        figure, axes = figure_of(WIDTH, 3.0)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, dashes=(4, 3))
        for spots, tint, hollow in ((before, MUTED, True), (after, color(shade), False)):
            if spots:
                axes.plot([s[0] for s in spots], [s[1] for s in spots], color=tint, linewidth=1.1, alpha=0.6)
            for confidence, accuracy, share in spots:
                mark(axes, confidence, accuracy, tint, hollow, 3.0 + 14 * share**0.5)
        scales(axes, Axis("confidence", share=True), Axis("right", share=True))
        axes.set_xlim(-0.02, 1.04)
        axes.set_ylim(-0.02, 1.04)
        figure.subplots_adjust(left=0.13, right=0.98, top=0.9, bottom=0.165)
        return to_svg(figure, name, alt)


def _line(axes: Axes, line: Line) -> None:
    shade, x = color(line.color), list(line.x)
    if line.low is not None and line.high is not None:
        axes.fill_between(x, line.low, line.high, color=shade, alpha=0.16, linewidth=0)
    axes.plot(x, line.y, color=shade, dashes=dashes(line.color, line.dashed))
    for a, b, hollow in zip(x, line.y, line.hollow or (), strict=False):
        mark(axes, a, b, shade, hollow, 4.0)


def _distinct(axes: Axes, names: Sequence[Name]) -> list[Name]:
    """Names (text, x, y, color); those of one text at nearly one place become one, in gray."""
    found: list[Name] = []
    places: list[Any] = []
    for text, x, y, shade in names:
        at = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))
        near = [i for i, other in enumerate(places) if found[i][0] == text and float(np.abs(at - other).max()) < 0.1]
        if near:
            found[near[0]] = (*found[near[0]][:3], MUTED)
        else:
            found.append((text, x, y, shade))
            places.append(at)
    return found


def _along(spots: Sequence[tuple[float, float]], between: int = 6) -> list[tuple[float, float]]:
    """Points along a path, ends of its legs included."""
    found = [spots[0]]
    for (a, b), (c, d) in pairwise(spots):
        found += [(a + t * (c - a), b + t * (d - b)) for t in np.linspace(0, 1, between)[1:].tolist()]
    return found

"""What an axis measures and how it is drawn, and the marks and strokes that all charts share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressl.report.svg import COLORS, GRID, MUTED, compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    """What an axis measures, and how."""

    label: str
    log: bool = False
    share: bool = False
    zero: bool = False
    """Begins at 0."""
    ticks: tuple[float, ...] = ()
    """Default: wherever it suits."""


def scales(axes: Axes, x: Axis, y: Axis) -> None:
    """Both axes as they are described, the name of the upright one above it."""
    for axis, one, few in ((axes.xaxis, x, 6), (axes.yaxis, y, 5)):
        _scale(axes, axis, one, few)
    axes.autoscale_view()  # names are placed before the figure is drawn
    if x.zero and not x.log:
        axes.set_xlim(left=0)
    if y.zero and not y.log:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(x.label)
    axes.set_title(y.label, loc="left", fontsize=9.5, color=MUTED, pad=8)


def _tick(value: float, axis: Axis) -> str:
    if axis.log and 0 < value < 0.001:
        return f"10{str(round(math.log10(value))).translate(SUPERSCRIPTS)}"
    return compact(value, share=axis.share)


def _scale(axes: Axes, axis: Any, one: Axis, few: int) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

    if one.log:
        (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
        axis.set_minor_formatter(NullFormatter())
        axis.set_minor_locator(NullLocator())
    if one.ticks:
        axis.set_ticks(list(one.ticks))
    elif not one.log:
        axis.set_major_locator(MaxNLocator(few, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda v, _: _tick(v, one)))
    axis.set_tick_params(which="both", color=GRID)


def dashes(index: int | None, dashed: bool) -> tuple[Any, Any]:
    """Of a line; the colors of later runs come again, dashed."""
    return (5, 2) if dashed or (index or 0) >= COLORS else (None, None)


def mark(axes: Axes, x: float, y: float, shade: str, hollow: bool, size: float) -> None:
    """A dot, or a circle."""
    look = {"markerfacecolor": "none", "markeredgewidth": 1.1} if hollow else {"markeredgewidth": 0}
    axes.plot([x], [y], marker="o", linestyle="none", markersize=size, color=shade, **look)

"""Figures as inline SVG that takes its font and colors from the page.

matplotlib draws with sentinel colors; they become CSS variables, so that one figure serves light, dark and print.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Spot = tuple[float, float]

COLORS = 6  # of runs, --run-0 to --run-5; later runs take them again, dashed
INK, MUTED, GRID = "#010203", "#010204", "#010205"
RUNS = [f"#0102{16 + i:02x}" for i in range(COLORS)]
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {c: f"--run-{i}" for i, c in enumerate(RUNS)}
PLACES = tuple((x, y) for y in (0, 0.7, -0.7, 1.4, -1.4, 2.1, -2.1) for x in (1, -1, 0) if x or y)  # beside a point
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


def color(index: int | None) -> str:
    """The sentinel of a run's color."""
    return MUTED if index is None else RUNS[index % COLORS]


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


def name_ends(figure: Figure, axes: Axes, ends: Sequence[tuple[str, float, str]]) -> None:
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
        write(axes, ends[i][0], (1, fraction), (5, 0), place, color=ends[i][2], va="center")


def write(
    axes: Axes, text: str, at: tuple[float, float], shift: tuple[float, float], systems: tuple[str, str], **look: Any
) -> None:
    """Text at a point of two coordinate systems, moved by points."""
    axes.annotate(text, at, shift, systems, "offset points", annotation_clip=False, **look)


def style(more: dict[str, Any] | None = None) -> Any:
    from matplotlib import style as styles

    return styles.context(["default", STYLE | (more or {})])


def figure_of(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def to_svg(figure: Figure, name: str, alt: str) -> str:
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


def percentage(share: float) -> str:
    return f"{100 * share:.1f} %".replace("-", "−")


def significant(value: float) -> str:
    """Three significant digits.

    >>> significant(1234.5), significant(0.01234), significant(-2.0)
    ('1,234', '0.0123', '−2')
    """
    text = f"{value:,.0f}" if math.fabs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−")


def place(
    figure: Figure, axes: Axes, texts: Sequence[tuple[str, float, float, str]], taken: Sequence[Spot] = ()
) -> None:
    """Names (text, x, y, color) beside their points, where they cover neither each other, other points nor the title.

    Args:
        taken: points of the data that no name should cover.
    """
    unit = figure.dpi / 72
    frame = figure.bbox
    spots = [axes.transData.transform(spot) for spot in (*taken, *((x, y) for _, x, y, _ in texts))]
    marks = [(x - 3 * unit, y - 3 * unit, x + 3 * unit, y + 3 * unit) for x, y in spots]
    edge, above = axes.bbox.x0, axes.bbox.y1 + 4 * unit
    boxes: list[tuple[float, ...]] = [(edge, above, edge + 5.6 * len(axes.get_title("left")) * unit, frame.height)]
    for text, x, y, shade in texts:
        words = text.split("\n")
        at, width = axes.transData.transform((x, y)), 5.6 * max(map(len, words)) * unit
        half = 6 * len(words) * unit
        best: tuple[float, Any, Any] | None = None
        for across, up in PLACES:
            left = at[0] + across * 7 * unit - (width if across < 0 else 0 if across > 0 else width / 2)
            middle = at[1] + up * 12 * unit
            box = (left, middle - half, left + width, middle + half)
            out = (axes.bbox.x0 - box[0], axes.bbox.y0 - box[1], box[2] - frame.width, box[3] - frame.height)
            cost = 20 * unit * sum(max(0.0, side) for side in out) + sum(_shared(box, other) for other in boxes)
            cost += 3 * sum(_shared(box, mark) for mark in marks)
            if best is None or cost < best[0] - 1e-9:
                best = cost, (across, up), box
        assert best is not None
        (across, up), box = best[1:]
        boxes.append(box)
        side = {-1: "right", 0: "center", 1: "left"}[across]
        write(axes, text, (x, y), (7 * across, 12 * up), ("data", "data"), color=shade, ha=side, va="center")


def _shared(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The area that two boxes (left, bottom, right, top) have in common."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))

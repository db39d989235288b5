"""Kept and superfluous information, in bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compressl.measures.intervals import Estimate
from compressl.report import charts
from compressl.report.axes import Axis
from compressl.report.measures.cells import Cell, Record, at, estimate, fixed, number, plain
from compressl.report.measures.parts import (
    Figure,
    Group,
    Line,
    Section,
    Table,
    line_figure,
    of_runs,
    representations,
    section,
    table,
)
from compressl.report.summary import percent

ABOUT = (
    "Kept is what a code of stated noise about the features says about the image; superfluous is what it says about "
    "the random augmentation alone. Bits per image. Both are known between bounds: read kept at its lower bound and "
    "superfluous at its upper one."
)
KEPT, SUPERFLUOUS = "kept, bits, at least", "superfluous, bits, at most"
CIRCLES = " Circles: a bound is at its ceiling, so that the true value may lie far off."

MOST_BITS = 16.0  # of an upper bound that is drawn: beyond, no sample of some thousand images says anything


def sections(group: Group) -> list[Section]:
    return section(
        "information",
        "Information",
        ABOUT,
        group,
        figures=[_plane, _accuracy, _kept_curve, _superfluous_curve],
        tables=[_bits, _trained],
    )


def _plane(group: Group) -> list[Figure]:
    drawn, words = [], []
    for member in group.members:
        found = [
            (x, y, point)
            for point in at(member.record, "measures", "information", "plane") or ()
            if (x := number(at(point, "superfluous", "upper"))) is not None
            and (y := number(at(point, "kept", "lower"))) is not None
        ]
        if not found:
            continue
        hollow = [_saturated(point) for _, _, point in found]
        first, last = (_step(found[i][2]) for i in (0, -1))
        name = f"{member.label}\n{last}" if len(group.members) > 1 else last
        drawn.append(charts.Path(member.index, [(x, y) for x, y, _ in found], first, name, hollow))
        (x, y, _), (x_end, y_end, _) = found[0], found[-1]
        words.append(
            f"{member.run.name} from {fixed(y, 2)} bits kept and {fixed(x, 2)} superfluous ({first}) to "
            f"{fixed(y_end, 2)} and {fixed(x_end, 2)} ({last}){_neighbours(found[0][2], found[-1][2])}"
        )
    if not drawn:
        return []
    alt = f"Kept against superfluous information along the training: {'; '.join(words)}."
    caption = (
        "Each mark is a checkpoint, the large one the last: up is more kept, left is less superfluous, so that the "
        "upper left is better." + CIRCLES * any(any(path.hollow) for path in drawn)
    )
    svg = charts.paths(group.named("plane"), drawn, Axis(SUPERFLUOUS), Axis(KEPT), alt=alt)
    return [Figure("Along the training", svg, caption)]


def _neighbours(first: Any, last: Any) -> str:
    a, b = (number(at(point, "knn", "value")) for point in (first, last))
    return "" if a is None or b is None else f", nearest neighbours from {percent(a)} to {percent(b)} right"


def _step(point: Any) -> str:
    return f"step {point['step']:,}"


def _saturated(point: Any) -> bool:
    return any(at(point, part, "saturated") is True for part in ("kept", "superfluous"))


def _accuracy(group: Group) -> list[Figure]:
    drawn, words = [], []
    for shown in representations(group, "measures", "information", "representations"):
        low, high = (number(at(shown.part, "kept", bound, "value")) for bound in ("lower", "upper"))
        right = estimate(at(shown.member.record, "results", shown.kind, "linear"))
        if low is None or high is None or right is None:
            continue
        hollow = at(shown.part, "kept", "saturated") is True
        drawn.append(charts.Point(shown.label, shown.color, Estimate(low, low, max(low, high)), right, hollow))
        words.append(f"{shown.name} {fixed(low, 2)} to {fixed(high, 2)} bits, {percent(right.value)} right")
    if len(drawn) < 2:
        return []
    svg = charts.points(
        group.named("rate-accuracy"),
        drawn,
        Axis("kept, bits"),
        Axis("right by a linear probe", share=True),
        alt=f"Linear accuracy against kept bits: {'; '.join(words)}.",
    )
    caption = (
        "The mark is the lower bound of what is kept, the line to its right reaches to the upper bound; the upright "
        "line is the interval of the accuracy. Higher is better; further left at the same height is the same accuracy "
        "from fewer bits." + CIRCLES * any(point.hollow for point in drawn)
    )
    return [Figure("Accuracy for the bits kept", svg, caption)]


def _kept_curve(group: Group) -> list[Figure]:
    return _curve(group, "kept", "lower", "Kept, by sharpness of the code", "More is kept where the line is higher.")


def _superfluous_curve(group: Group) -> list[Figure]:
    return _curve(group, "superfluous", "upper", "Superfluous, by sharpness of the code", "Lower is better.")


def _curve(group: Group, of: str, bound: str, title: str, meaning: str) -> list[Figure]:
    drawn, words = [], []
    for shown in representations(group, "measures", "information", "representations"):
        found = [
            (x, low, high, at(point, of, "saturated") is True)
            for point in at(shown.part, "rate_curve") or ()
            if (x := number(at(point, "orthogonal_bits"))) is not None
            and x > 0
            and (low := number(at(point, of, "lower"))) is not None
            and (high := number(at(point, of, "upper"))) is not None
            and high <= MOST_BITS
        ]
        if not found:
            continue
        across, low_ends, high_ends, hollow = zip(*found, strict=True)
        y = low_ends if bound == "lower" else high_ends
        drawn.append(charts.Line(shown.label, shown.color, across, y, low_ends, high_ends, hollow=hollow))
        words.append(f"{shown.name} from {fixed(y[0], 2)} to {fixed(y[-1], 2)} bits")
    side = "at least" if bound == "lower" else "at most"
    what = f"{title}, from the dullest code to the sharpest"
    axes = Axis("bits between codes at right angles", log=True), Axis(f"{of}, bits, {side}", zero=True)
    caption = (
        f"{'Lower' if bound == 'lower' else 'Upper'} bound, with a band to the other one, over how far apart the noise "
        f"of the code leaves two features at right angles; sharper codes, whose upper bound passes {MOST_BITS:g} bits, "
        f"are left out. {meaning}" + CIRCLES * any(any(d.hollow or ()) for d in drawn)
    )
    return line_figure(group, f"rate-{of}", title, drawn, axes, what=what, words=words, caption=caption)


def _bits(group: Group) -> list[Table]:
    shown = representations(group, "measures", "information", "representations")
    levels = sorted(
        {
            level
            for each in shown
            for entry in at(each.part, "superfluous_at") or ()
            if (level := number(at(entry, "kept_bits"))) is not None
        }
    )
    lines: list[Line] = [
        ("total", "bits", _bounds("total")),
        ("kept", "bits, more says more of the image", _bounds("kept")),
        ("superfluous", "bits, less is better", _bounds("superfluous")),
        *((f"superfluous at {level:.3g} kept", "bits, at most; less is better", _at(level)) for level in levels),
        ("concentration", "kappa of the code", plain("kappa", digits=1)),
        ("highest concentration that is resolved", "kappa", plain("resolved_kappa", digits=0)),
        ("dimension", "of the features", plain("dimension", digits=0)),
    ]
    caption = (
        "Lower to upper bound. “At the ceiling” means that more images or views would be needed to say how large it "
        "is. What is superfluous "
        "where a number of bits is kept depends on no concentration; a dash there means that so many are never certain."
    )
    return table("In bits", shown, lines, caption)


def _bounds(of: str) -> Callable[[Record], Cell | None]:
    def read(part: Record) -> Cell | None:
        low, high = (number(at(part, of, bound, "value")) for bound in ("lower", "upper"))
        if low is None or high is None:
            return None
        ceiling = "at the ceiling" if at(part, of, "saturated") is True else ""
        return Cell(f"{fixed(low, 2)} – {fixed(high, 2)}", ceiling)

    return read


def _at(level: float) -> Callable[[Record], Cell | None]:
    def read(part: Record) -> Cell | None:
        for entry in part["superfluous_at"]:
            if number(at(entry, "kept_bits")) == level and (bits := number(at(entry, "superfluous_bits"))) is not None:
                return Cell(fixed(bits, 2))
        return None

    return read


def _trained(group: Group) -> list[Table]:
    """By the density that a method trained."""
    shown = of_runs(group, "measures", "information")
    trained = "trained_channel"
    lines: list[Line] = [
        ("density", "of the trained code", lambda part: Cell(str(part[trained]["channel"]))),
        ("kept", "bits", lambda part: _bounds("kept")(part[trained])),
        ("superfluous", "bits, less is better", lambda part: _bounds("superfluous")(part[trained])),
        ("residual information", "bits above the floor, less is better", plain("residual", "excess_bits")),
        ("size of the code", "bits", plain(trained, "code", "size_bits", digits=0)),
        ("bits in use", "of the code", plain(trained, "code", "active_bits", digits=1)),
        ("coded size", "bits for each image after coding", plain(trained, "code", "coded_bits", digits=1)),
        ("size of the image", "bits", plain(trained, "code", "image_bits", digits=0)),
        ("signal to noise", "of the code", plain(trained, "signal_to_noise")),
    ]
    caption = (
        "The same by the density that the training itself fitted; methods train different ones: read down, not across."
    )
    return table("As the method was trained", shown, lines, caption)

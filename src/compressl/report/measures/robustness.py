"""Corrupted images, attacked images, and images from elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from compressl.evaluation.differences import attack_name
from compressl.report import charts
from compressl.report.measures.cells import Cell, Record, at, items, number, numbers, points, share
from compressl.report.measures.parts import (
    Figure,
    Group,
    Line,
    Section,
    Shown,
    Table,
    of_runs,
    representations,
    section,
    table,
)
from compressl.report.summary import percent

ABOUT = (
    "Classifiers are fitted on clean training images and tested on images that were corrupted, attacked, or taken "
    "elsewhere. Accuracy, more is better."
)
PLACE = ("measures", "robustness", "results")
Map = list[list[float]]


def sections(group: Group) -> list[Section]:
    return section("robustness", "Robustness", ABOUT, group, figures=[_maps], tables=[_means, _attacks, _shifts])


def _maps(group: Group) -> list[Figure]:
    """Accuracy by kind and severity for each run, and for two runs the difference."""
    shown = [(each, _map(each)) for each in of_runs(group, *PLACE, "encoder")]
    shown = [(each, found) for each, found in shown if found]
    if not shown:
        return []
    values = [value for _, found in shown for row in found.values() for value in row]
    limits = min(values), max(values)
    drawn = [_heat(group, each, found, limits) for each, found in shown]
    if len(shown) == 2 and _conditions(shown[0][0]) == _conditions(shown[1][0]) is not None:
        drawn += _difference(group, *shown)
    return drawn


def _map(shown: Shown) -> dict[str, list[float]]:
    found = {kind: numbers(values) for kind, values in items(at(shown.part, "accuracy"))}
    return {kind: values for kind, values in found.items() if values}


def _conditions(shown: Shown) -> object:
    return at(shown.member.record, "measures", "robustness", "conditions")


def _rows(shown: Shown, found: dict[str, list[float]]) -> tuple[list[str], Map, list[str]]:
    """Kinds of the benchmark, a gap, the extra kinds; their values; the severities."""
    extra = [
        kind for kind in at(shown.member.record, "measures", "robustness", "kinds", "extra") or () if kind in found
    ]
    kinds = [kind for kind in found if kind not in extra] + ([""] if extra else []) + extra
    wide = max(len(values) for values in found.values())
    rows = [kind.replace("_", " ") for kind in kinds]
    return rows, [found.get(kind, []) for kind in kinds], [str(i + 1) for i in range(wide)]


def _heat(group: Group, shown: Shown, found: dict[str, list[float]], limits: tuple[float, float]) -> Figure:
    rows, values, columns = _rows(shown, found)
    ends = [(sum(row[i] for row in values if row) / sum(map(bool, values))) for i in (0, -1)]
    worst = min(found, key=lambda kind: min(found[kind]))
    words = (
        f"from {percent(ends[0])} right at severity 1 to {percent(ends[1])} at {columns[-1]}; lowest "
        f"{percent(min(found[worst]))}, {worst.replace('_', ' ')}"
    )
    svg = charts.heat(
        group.named(f"corruptions-{shown.member.index}"),
        rows,
        columns,
        values,
        limits,
        colors=(shown.color, shown.color),
        alt=f"Accuracy of {shown.name} by kind of corruption and severity: {words}.",
    )
    clean = number(at(shown.part, "clean", "value"))
    beside = "" if clean is None else f" Clean images: {percent(clean)}."
    last = " The last rows are extra kinds that no mean contains." if "" in rows else ""
    caption = f"Linear probe, % of the corrupted images right; the stronger the color, the more.{beside}{last}"
    return Figure(shown.name, svg, caption)


def _difference(
    group: Group, first: tuple[Shown, dict[str, list[float]]], second: tuple[Shown, dict[str, list[float]]]
) -> list[Figure]:
    (one, a), (other, b) = first, second
    both = {k: [p - q for p, q in zip(a[k], b[k], strict=False)] for k in a if k in b and len(a[k]) == len(b[k])}
    if not both:
        return []
    rows, values, columns = _rows(one, both)
    flat = [value for row in both.values() for value in row]
    ahead = sum(value > 0 for value in flat)
    svg = charts.heat(
        group.named("corruptions-difference"),
        rows,
        columns,
        values,
        (0.0, max(max(map(abs, flat)), 0.02)),
        colors=(one.color, other.color),
        signed=True,
        alt=f"{one.name} less {other.name} by kind of corruption and severity, in points: {one.name} is ahead in "
        f"{ahead} of {len(flat)} cells; from {100 * min(flat):+.0f} to {100 * max(flat):+.0f}.",
    )
    caption = (
        f"Points of {one.name} less those of {other.name}, in the color of the run that is ahead. Single cells vary by "
        "chance; the table of differences has the mean with its interval."
    )
    return [Figure(f"{one.name} less {other.name}", svg, caption)]


def _means(group: Group) -> list[Table]:
    shown = representations(group, *PLACE)
    names = dict.fromkeys(name for each in shown for name, _ in items(at(each.part, "categories")))
    lines: list[Line] = [
        ("clean images", "", share("clean")),
        ("corrupted images", "mean of 15 kinds and 5 severities", share("corrupted")),
        ("lost", "points; less is better", points("gap")),
        *((name, "", share("categories", name)) for name in names),
        ("extra kinds", "in no mean", share("extra")),
        ("corruption error", "relative to the baseline; less is better", share("baseline", "mean_corruption_error")),
        (
            "relative corruption error",
            "what is lost, relative to the baseline; less is better",
            share("baseline", "relative_mean_corruption_error"),
        ),
        ("corruption error, AlexNet = 100 %", "less is better", share("alexnet", "mean_corruption_error")),
        ("nearest neighbours", "", None),
        ("clean images", "", share("knn", "clean")),
        ("corrupted images", "", share("knn", "corrupted")),
        ("lost", "points; less is better", points("knn", "gap")),
    ]
    return table("Corrupted images", shown, lines, "Accuracy of the linear probe, with 95\u202f% intervals.")


def _attacks(group: Group) -> list[Table]:
    shown = of_runs(group, "measures", "robustness", "attacks")
    sizes = {"linf": "largest change of a pixel", "l2": "Euclidean length of the change"}
    lines: list[Line] = []
    for norm, note in sizes.items():
        epsilons = sorted(
            {
                e
                for each in shown
                for entry in at(each.part, norm) or ()
                if (e := number(at(entry, "epsilon"))) is not None
            }
        )
        lines += [(attack_name(norm, e), note if e else "the same images", _under(norm, e)) for e in epsilons]
    caption = (
        "Accuracy of the linear probe on images that an attacker changed, with gradients through encoder and probe. A "
        "stronger attack could find more: these are upper bounds. More is better."
    )
    return table("Attacked images", shown, lines, caption)


def _under(norm: str, epsilon: float) -> Callable[[Record], Cell | None]:
    def read(part: Record) -> Cell | None:
        return next((share("accuracy")(entry) for entry in part[norm] if at(entry, "epsilon") == epsilon), None)

    return read


def _shifts(group: Group) -> list[Table]:
    names = dict.fromkeys(n for m in group.members for n, _ in items(at(m.record, "measures", "robustness", "shift")))
    tables: list[Table] = []
    for name in names:
        shown = representations(group, "measures", "robustness", "shift", name, "results")
        lines: list[Line] = [
            ("there", name, share("accuracy")),
            ("here", "same classes", share("clean")),
            ("lost", "points; less is better", points("gap")),
        ]
        about = [at(m.record, "measures", "robustness", "shift", name) for m in group.members]
        images = next((n for part in about if (n := number(at(part, "images"))) is not None), None)
        counted = "" if images is None else f" {images:,.0f} images there."
        caption = f"The same linear probe on images of the same classes from elsewhere.{counted}"
        tables += table(f"Images from elsewhere: {name}", shown, lines, caption)
    return tables

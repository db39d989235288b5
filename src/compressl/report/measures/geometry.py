"""Invariance, dimension and tasks; slopes."""

from __future__ import annotations

from collections.abc import Callable

from compressl.report import charts
from compressl.report.axes import Axis
from compressl.report.measures.cells import Cell, Record, at, fixed, items, number, numbers, plain, points, share
from compressl.report.measures.parts import (
    Column,
    Figure,
    Group,
    Line,
    Section,
    Table,
    line_figure,
    representations,
    section,
    table,
)
from compressl.report.svg import significant

ABOUT = (
    "How the features lie: alike for views of one image and unlike for others, in as many directions as tasks need; "
    "and how far they move when an image moves a little."
)
PLACE = ("measures", "geometry", "results")
FLOOR = 1e-7  # of the largest eigenvalue: below lies rounding


def sections(group: Group) -> list[Section]:
    return section(
        "geometry", "Geometry", ABOUT, group, figures=[_spectrum, _augmentations], tables=[_figures, _slopes]
    )


def _spectrum(group: Group) -> list[Figure]:
    drawn, words = [], []
    found = [(s, numbers(at(s.part, "dimension", "eigenvalues"))) for s in representations(group, *PLACE)]
    most = max((len(values) for shown, values in found if shown.kind != "raw pixels"), default=None)
    for shown, values in found:
        if not values or values[0] <= 0:
            continue
        ratios = [value / values[0] for value in values[:most]]
        length = next((i for i, ratio in enumerate(ratios) if ratio < FLOOR), len(ratios))
        x, y = [float(i + 1) for i in range(length)], ratios[:length]
        dashed = shown.kind == "raw pixels"
        drawn.append(charts.Line(shown.label, shown.color, x, y, dashed=dashed))
        half = sum(ratio >= 0.01 for ratio in ratios)
        words.append(f"{shown.name}: {half} of {len(ratios)} directions above a hundredth of the first")
    what = "Eigenvalues of the covariance of the features"
    axes = Axis("direction"), Axis("variance, share of the largest", log=True)
    caption = (
        "Variance of the features along their principal directions, over the largest. A line that falls late uses more "
        "directions; a steep fall is a partial collapse."
    )
    return line_figure(group, "spectrum", "Directions in use", drawn, axes, what=what, words=words, caption=caption)


def _augmentations(group: Group) -> list[Figure]:
    """Invariance to each augmentation alone."""
    shown = representations(group, *PLACE)
    kinds = list(dict.fromkeys(kind for each in shown for kind, _ in items(at(each.part, "augmentations"))))
    rows = [[number(at(e.part, "augmentations", kind, "invariance", "value")) for kind in kinds] for e in shown]
    found = [(each, row) for each, row in zip(shown, rows, strict=True) if any(value is not None for value in row)]
    if not found:
        return []
    svg = charts.dots(
        group.named("augmentations"),
        kinds,
        [(each.color, row, each.kind == "raw pixels") for each, row in found],
        Axis("invariance"),
        alt="Invariance by augmentation: "
        + "; ".join(
            f"{each.name} " + ", ".join(f"{k} {fixed(v, 2)}" for k, v in zip(kinds, row, strict=True) if v is not None)
            for each, row in found
        )
        + ".",
    )
    caption = (
        "Of each augmentation alone: 1 where it leaves the features as they are, 0 where it moves them as far as "
        "another image would. More is more invariant."
    )
    key = tuple(Column(each.name, each.color, hollow=each.kind == "raw pixels") for each, _ in found)
    return [Figure("Invariance by augmentation", svg, caption, key)]


def _figures(group: Group) -> list[Table]:
    shown = representations(group, *PLACE)
    lines: list[Line] = [
        ("views of an image together", "", None),
        ("invariance", "1 = alike, 0 = as unrelated ones; more is better", plain("invariance", "invariance")),
        ("cosine of two views", "", plain("invariance", "cosine")),
        ("cosine of unrelated views", "what to compare it with", plain("invariance", "cosine_null")),
        ("own image found by a view", "among all views; more is better", share("invariance", "retrieval")),
        ("variance within over between", "less is better", plain("invariance", "variance_ratio")),
        ("spread and dimension", "", None),
        ("uniformity", "less is more even", plain("spread", "uniformity")),
        ("length of the features", "", plain("features", digits=0)),
        ("correlation rank", "directions for a linear probe", plain("dimension", "correlation_rank", digits=0)),
        ("needed", "classes less one", plain("dimension", "needed", digits=0)),
        ("RankMe", "effective directions, not centred", plain("dimension", "rankme", digits=1)),
        ("entropy rank", "effective directions", plain("dimension", "entropy_rank", digits=1)),
        ("participation ratio", "effective directions", plain("dimension", "participation_ratio", digits=1)),
        ("tasks", "", None),
        ("image told from a view, linear", "more is better", share("instances", "linear", "accuracy")),
        ("gained by a small network", "points; near 0 is better", points("instances", "gap_accuracy")),
        ("worst grouping of classes", "on test images; more is better", share("groupings", "labels_tested", "min")),
        ("where the probe's error comes from", "", None),
        ("features do not separate", "points; less is better", points("risk", "usability")),
        ("probe does not generalise", "points; less is better", points("risk", "probe_generalisation")),
        ("encoder does not generalise", "points; less is better", points("risk", "encoder_generalisation")),
    ]  # fmt: skip
    return table("In figures", shown, lines, "With 95\u202f% intervals where there are any.")


def _slopes(group: Group) -> list[Table]:
    shown = representations(group, "measures", "lipschitz", "results")
    kinds = dict.fromkeys(kind for each in shown for kind, _ in items(at(each.part, "pairs")))
    lines: list[Line] = [
        (kind.replace("_", " "), "pairs of images", _quantiles("pairs", kind, "slope")) for kind in kinds
    ]
    lines.append(("any direction", "at an image", _quantiles("local", "slope")))
    caption = (
        "How far unit features move for each unit that the pixels move (Euclidean, values from 0 to 1): median, then "
        "5\u202f% and 95\u202f% quantile and the largest. Less is smoother, which is worth something only where "
        "accuracy is kept. Each is a lower bound of the Lipschitz constant."
    )
    return table("Slopes", shown, lines, caption)


def _quantiles(*path: str) -> Callable[[Record], Cell | None]:
    def read(part: Record) -> Cell | None:
        middle, low, high, most = (number(at(part, *path, name)) for name in ("q50", "q05", "q95", "max"))
        if middle is None or low is None or high is None:
            return None
        end = "" if most is None else f", max {most:.2g}"
        return Cell(significant(middle), f"{low:.2g} – {high:.2g}{end}")

    return read

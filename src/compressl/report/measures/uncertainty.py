"""Calibration, and whether doubtful images are those that are wrong."""

from __future__ import annotations

from compressl.report import charts
from compressl.report.axes import Axis
from compressl.report.charts import Spot3
from compressl.report.measures.cells import Record, at, estimate, items, number, numbers, plain, points, share
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
from compressl.report.svg import significant

ABOUT = (
    "Whether the linear probe is right as often as it says, and whether scores of doubt are high where it is wrong, "
    "where images are corrupted, and on other data."
)
PLACE = ("measures", "uncertainty", "results")
SCORE = "least_confidence"  # of the selective curve: one stated score for all, not the best on these test images
SCORES = {
    "least_confidence": "1 less the largest probability",
    "entropy_bits": "entropy of the probabilities",
    "negative_norm": "short features",
    "knn_distance": "distance to the neighbours",
    "dispersion": "spread of the views",
    "code_predictive_entropy_bits": "entropy over drawn codes",
    "code_disagreement_bits": "disagreement of drawn codes",
    "code_entropy_bits": "entropy of the code",
}


def sections(group: Group) -> list[Section]:
    return section(
        "uncertainty", "Uncertainty", ABOUT, group, figures=[_diagrams, _selective], tables=[_calibration, _scores]
    )


def _diagrams(group: Group) -> list[Figure]:
    drawn = []
    for shown in of_runs(group, *PLACE, "encoder"):
        part = at(shown.part, "calibration")
        before, after = (_bins(at(part, when, "bins")) for when in ("before", "after"))
        if not before and not after:
            continue
        errors = [estimate(at(part, when, "ece")) for when in ("before", "after")]
        ece = " and ".join("unknown" if e is None else percent(e.value) for e in errors)
        temperature = number(at(part, "temperature"))
        warm = "" if temperature is None else f" (temperature {significant(temperature)})"
        svg = charts.reliability(
            group.named(f"reliability-{shown.member.index}"),
            before,
            after,
            shown.color,
            alt=f"Accuracy by confidence of {shown.name}: expected calibration error {ece}, before and after{warm}.",
        )
        caption = (
            f"Share right among images of like confidence, before (circles) and after{warm} scaling; larger marks are "
            f"more images. Dashed: perfectly calibrated; below it the probe is too sure, "
            f"above too cautious. Expected calibration error {ece}."
        )
        title = f"Calibration of {shown.name}" if len(group.members) > 1 else "Calibration"
        drawn.append(Figure(title, svg, caption))
    return drawn


def _bins(bins: Record | None) -> list[Spot3]:
    confidence, accuracy, count = (numbers(at(bins, name)) for name in ("confidence", "accuracy", "count"))
    total = sum(count)
    return [(c, a, n / total) for c, a, n in zip(confidence, accuracy, count, strict=False) if n > 0]


def _selective(group: Group) -> list[Figure]:
    drawn, words = [], []
    for shown in representations(group, *PLACE):
        coverage = numbers(at(shown.member.record, "measures", "uncertainty", "coverage"))
        risk = numbers(at(shown.part, "errors", SCORE, "risk"))
        if not risk or len(coverage) != len(risk):
            continue
        y = [1 - value for value in risk]
        drawn.append(charts.Line(shown.label, shown.color, coverage, y))
        words.append(f"{shown.name} from {percent(y[0])} right of the surest to {percent(y[-1])} of all")
    what = "Selective accuracy by coverage"
    axes = Axis("answered, surest first", share=True), Axis("right of those answered", share=True)
    caption = (
        "Accuracy if only the surest images are answered, by the largest probability of the linear probe. Higher is "
        "better; a line that falls to the right is a doubt that knows its errors, a flat one is worth nothing."
    )
    return line_figure(group, "selective", "Selective accuracy", drawn, axes, what=what, words=words, caption=caption)


def _calibration(group: Group) -> list[Table]:
    when = {"before": "before scaling", "after": "after scaling by the temperature"}
    lines: list[Line] = [("temperature", "1 = calibrated, more = too sure", plain("calibration", "temperature"))]
    for key, words in when.items():
        lines += [
            (words, "", None),
            ("expected calibration error", "points; less is better", points("calibration", key, "ece")),
            ("what perfect calibration would show", "points, by chance", points("calibration", key, "ece_floor")),
            ("Brier score", "less is better", plain("calibration", key, "brier", digits=3)),
            ("log loss", "bits; less is better", plain("calibration", key, "nll_bits")),
        ]
    lines += [
        ("people's votes", "", None),
        ("divergence from them", "bits; less is better", plain("human", "before", "kl_bits")),
        ("divergence after scaling", "bits; less is better", plain("human", "after", "kl_bits")),
    ]
    caption = "Of the linear probe on the test images, with 95\u202f% intervals."
    return table("Probabilities", representations(group, *PLACE), lines, caption)


def _scores(group: Group) -> list[Table]:
    """What each score tells apart."""
    shown = representations(group, *PLACE)

    def named(*path: str) -> dict[str, None]:
        return dict.fromkeys(name for each in shown for name, _ in items(at(each.part, *path)))

    lines: list[Line] = [("errors of the probe", "", None)]
    lines += [(_words(s), "AUROC", share("errors", s, "auroc")) for s in named("errors")]
    for kind in named("severity"):
        lines.append((f"strength of {kind.replace('_', ' ')}", "", None))
        lines += [(_words(s), "rank correlation", plain("severity", kind, s, "trend")) for s in named("severity", kind)]
    for other in named("other_data"):
        lines.append((f"other data: {other}", "", None))
        place = ("other_data", other, "scores")
        lines += [(_words(s), "AUROC", share(*place, s, "auroc")) for s in named(*place)]
    lines.append(("people's doubt", "", None))
    lines += [(_words(s), "rank correlation", plain("human", "correlation", s)) for s in named("human", "correlation")]
    caption = (
        "How well each score of doubt finds what stands above it. AUROC: 50\u202f% is chance, 100\u202f% perfect. Rank "
        "correlation: 0 is none, 1 perfect. More is better."
    )
    return table("What the scores find", shown, lines, caption, "score", folded=True)


def _words(score: str) -> str:
    return SCORES.get(score, score.replace("_", " "))

"""Few labels, fine-tuning, and other labelled images."""

from __future__ import annotations

from compressl.report import charts
from compressl.report.axes import Axis
from compressl.report.measures.cells import at, attempt, estimate, items, share
from compressl.report.measures.parts import (
    Figure,
    Group,
    Line,
    Section,
    Shown,
    Table,
    line_figure,
    representations,
    section,
    table,
)
from compressl.report.summary import percent

ABOUT = (
    "Accuracy on the test images from few labelled training images: a ridge classifier on the features, and the whole "
    "encoder trained on. More is better, and with few labels most of all."
)


def sections(group: Group) -> list[Section]:
    return section(
        "few-labels", "Few labels", ABOUT, group, figures=[_curve], tables=[_amounts, _fine_tuned, _elsewhere]
    )


def _curve(group: Group) -> list[Figure]:
    drawn, words, amounts = [], [], set()
    for shown in representations(group, "results"):
        shots = {name: estimate(e) for name, e in items(at(shown.part, "few_labels")) if name.isdecimal()}
        found = sorted((int(name), e) for name, e in shots.items() if e is not None and int(name) > 0)
        if len(found) < 2:
            continue
        x, estimates = [float(n) for n, _ in found], [e for _, e in found]
        amounts |= set(x)
        drawn.append(
            charts.Line(
                shown.label,
                shown.color,
                x,
                [e.value for e in estimates],
                [e.low for e in estimates],
                [e.high for e in estimates],
                dashed=shown.kind == "raw pixels",
                hollow=[False] * len(x),
            )
        )
        words.append(
            f"{shown.name} {percent(estimates[0].value)} from {x[0]:g} to {percent(estimates[-1].value)} from {x[-1]:g}"
        )
    title = "Accuracy by labels per class"
    caption = (
        "Mean over draws of the labelled images, the same draws for all; bands are 95\u202f% intervals. Gray: a random "
        "encoder and raw pixels (dashed). Higher is better."
    )
    axes = Axis("labels per class", log=True, ticks=tuple(sorted(amounts))), Axis("right", share=True)
    return line_figure(group, "few-labels", title, drawn, axes, what=title, words=words, caption=caption)


def _amounts(group: Group) -> list[Table]:
    shown = representations(group, "results")
    names = dict.fromkeys(name for each in shown for name, _ in items(at(each.part, "few_labels")))
    lines: list[Line] = [
        (f"{name} of the labels" if name.endswith("%") else f"{name} per class", "", share("few_labels", name))
        for name in names
    ]
    lines.append(("all labels", "", share("ridge")))
    caption = "Accuracy, with 95\u202f% intervals. More is better."
    return table("A ridge classifier on the features", shown, lines, caption, "labels", folded=True)


def _fine_tuned(group: Group) -> list[Table]:
    shown = representations(group, "measures", "fine-tuning")
    shown = [each for each in shown if each.kind in ("encoder", "random encoder")]
    names = dict.fromkeys(name for each in shown for name, e in items(each.part) if attempt(share(name), each.part))
    lines: list[Line] = [(f"{name} of the labels", "", share(name)) for name in names]
    caption = (
        "The whole encoder trained on with a linear layer; the random encoder shows what the labels alone can do. A "
        "short training by one protocol: for comparing representations, not the best that an encoder can reach."
    )
    return table("Fine-tuning", shown, lines, caption, "labels")


def _elsewhere(group: Group) -> list[Table]:
    names = dict.fromkeys(
        name for m in group.members for name, part in items(at(m.record, "measures", "transfer")) if at(part, "results")
    )
    return [found for name in names for found in _transfer(name, group)]


def _transfer(name: str, group: Group) -> list[Table]:
    shown: list[Shown] = representations(group, "measures", "transfer", name, "results")
    lines: list[Line] = [
        ("linear probe", "", share("linear")),
        ("nearest neighbours", "", share("knn")),
        ("ridge classifier", "", share("ridge")),
    ]
    caption = "Classifiers fitted and tested on these images; the encoder never saw them. More is better."
    return table(f"On other images: {name}", shown, lines, caption)

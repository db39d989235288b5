"""Which curves a report shows, in which units, and what each of them says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compressl.report import figures
from compressl.report.figures import Curve
from compressl.report.reading import Run, Series, bits
from compressl.report.svg import percentage, significant


@dataclass(frozen=True)
class Panel:
    """One quantity over the training."""

    keys: tuple[str, ...]
    """Names in metrics.jsonl; of each run the first that it has."""
    title: str
    unit: str
    caption: str
    convert: Callable[[float], float] = float
    share: bool = False
    log: bool = False
    zero: bool = False
    """The axis begins at 0."""


@dataclass(frozen=True)
class Drawing:
    """A panel with the curves of all runs that have the quantity."""

    title: str
    caption: str
    svg: str


GROUPS: dict[str, tuple[Panel, ...]] = {
    "Learning": (
        Panel(("loss",), "Loss", "loss", "What the training minimises, at its view of one batch."),
        Panel(
            ("knn",),
            "Nearest neighbours during training",
            "right",
            "Accuracy between training images: a sign of life, not a result.",
            share=True,
        ),
        Panel(
            ("alignment",),
            "Agreement of the two views",
            "mean cosine",
            "1 where the two views of an image are embedded alike.",
        ),
    ),
    "Information": (
        Panel(
            ("mutual_information_bound",),
            "Information that the views share",
            "bits per image, at least",
            "Lower bound of I(Y;Z): what the code of one view tells about the other.",
            convert=bits,
            zero=True,
        ),
        Panel(
            ("residual_information_excess",),
            "Residual information",
            "bits per image above the floor",
            "What the code keeps of its view that the other branch cannot predict, I(X;Z|Y), less the constant that "
            "the two concentrations cost. Compression pushes it down.",
            convert=bits,
            zero=True,
        ),
    ),
    "Health": (
        Panel(
            ("embedding_std",),
            "Spread of the embeddings",
            "1 = uniform on the sphere",
            "Near 0 all images are embedded alike: collapse.",
            zero=True,
        ),
        Panel(
            ("embedding_effective_rank",),
            "Effective rank",
            "dimensions in use",
            "How many directions the embeddings really use.",
            zero=True,
        ),
        Panel(("gradient_norm",), "Norm of the gradient", "norm, logarithmic", "Before any clipping.", log=True),
        Panel(("lr",), "Learning rate", "learning rate", "Linear warm-up, then a cosine to zero.", zero=True),
    ),
}


def draw_panels(runs: Sequence[Run]) -> dict[str, list[Drawing]]:
    """Every group of panels for which there are numbers."""
    scale, xlabel = _axis(runs)
    groups: dict[str, list[Drawing]] = {}
    for group, panels in GROUPS.items():
        for panel in panels:
            if drawing := _draw(panel, runs, scale, xlabel):
                groups.setdefault(group, []).append(drawing)
    return groups


def values_of(panel: Panel, run: Run) -> Series:
    """The series of a run in the units of a panel."""
    series = next((found for key in panel.keys if (found := run.series(key))), [])
    return [(step, panel.convert(value)) for step, value in series if value > 0 or not panel.log]


def ceiling(run: Run) -> float | None:
    """What the contrastive bound cannot exceed, in bits: log2 of the candidates in a batch.

    Known for methods whose loss has the double batch.
    """
    batch, method = run.settings.get("batch_size"), run.settings.get("method.name")
    if method not in ("simclr", "c-simclr") or not isinstance(batch, int) or batch < 2:
        return None
    return math.log2(2 * batch - 1)


def _axis(runs: Sequence[Run]) -> tuple[list[int], str]:
    """Steps; images seen where batches differ, as steps then mean different amounts of work."""
    sizes = [run.settings.get("batch_size") for run in runs]
    whole = [size for size in sizes if isinstance(size, int)]
    if len(set(sizes)) > 1 and len(whole) == len(sizes):
        return whole, "images seen"
    return [1] * len(runs), "step"


def _last(series: Series, panel: Panel) -> str:
    """The value at the end, for a curve alone."""
    value = series[-1][1]
    return percentage(value) if panel.share else significant(value)


def _draw(panel: Panel, runs: Sequence[Run], scale: Sequence[int], xlabel: str) -> Drawing | None:
    lines, words, ceilings = [], [], []
    for i, run in enumerate(runs):
        if not (series := values_of(panel, run)):
            continue
        values = [(step * scale[i], value) for step, value in series]
        lines.append(Curve(run.label if len(runs) > 1 else _last(series, panel), i, values))
        words.append(f"{run.name} {figures.describe(series, share=panel.share)}")
        ceilings.append(ceiling(run))
    if not lines:
        return None
    caption, reference = panel.caption, None
    if "mutual_information_bound" in panel.keys and len(set(ceilings)) == 1 and (limit := ceilings[0]) is not None:
        reference = (limit, "ceiling")
        caption += f" It cannot exceed {limit:.1f} bits, the choice among the views of a batch (dashed)."
    if panel.keys == ("loss",) and len({run.settings.get("method.name") for run in runs}) > 1:
        caption = "What each training minimises. Methods differ in scale and constants: compare shapes, not heights."
    unit = panel.unit
    svg = figures.curves(
        f"panel-{panel.keys[0]}",
        lines,
        alt=f"{panel.title} ({unit}) over the training: {'; '.join(words)}.",
        xlabel=xlabel,
        ylabel=unit,
        log=panel.log,
        share=panel.share,
        zero=panel.zero,
        reference=reference,
    )
    return Drawing(panel.title, caption, svg)

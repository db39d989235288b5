"""What a person is told and shown when a training begins."""

from __future__ import annotations

from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from compressl import pictures
from compressl.data import Batch
from compressl.runs import RunFolder
from compressl.training.checkpoint import Loaded
from compressl.training.setup import Training
from compressl.views import denormalize


def announce(
    training: Training, resumed: Loaded | None, record: dict[str, Any], run: RunFolder, console: Console
) -> None:
    """What is trained on what, and, if a run goes on, from where and how exactly."""
    settings, processes = training.settings, record["processes"]
    for note in training.notes:
        console.print(note, highlight=False, markup=False)
    console.print(
        f"{settings.method.name} · {settings.encoder.name} · {len(training.packed):,} images at "
        f"{_sides(training)} px · {settings.epochs} epoch{'s' * (settings.epochs > 1)} of "
        f"{training.steps_per_epoch} steps · "
        f"{'' if processes == 1 else f'{processes} x '}{record['device']} {training.precision}, "
        f"{record['threads']} threads · {run.path}",
        highlight=False,
        markup=False,
    )
    console.print(fast_paths(training), highlight=False, markup=False)
    if resumed is None:
        return
    for name, reason in resumed.skipped.items():
        console.print(f"Checkpoint {name} is damaged and was passed over: {reason}.", highlight=False, markup=False)
    step = resumed.state["step"]
    differing = changes(resumed, record)
    if [name.partition(" ")[0] for name in differing] == ["processes"]:
        exact = "the same images, views and noise; sums may be taken in another order"
    elif differing:
        exact = f"not bit-exact, as these changed: {', '.join(differing)}"
    elif record["device"] == "cpu":
        exact = "to the bit"
    else:
        exact = "the same images, views and noise; this device may sum in another order"
    console.print(f"Continuing after step {step} of {training.total_steps} ({exact}).", highlight=False, markup=False)


def _sides(training: Training) -> str:
    first, last = training.stages[0].recipes[0].size, training.card.size
    return str(last) if first == last else f"{first} to {last}"


def fast_paths(training: Training) -> str:
    """What makes this training fast, and what is off and why: nothing is slower in silence."""
    settings, device = training.settings, training.device
    on, off = [], []
    if training.precision == "bf16":
        on.append("bf16")
    elif settings.precision == "auto":
        off.append("bf16 (this processor does not multiply it itself)")
    else:
        off.append("bf16 (--precision fp32)")
    (on if settings.channels_last else off).append("channels-last")
    if device.type == "cuda" and training.precision == "fp32" and torch.backends.cudnn.allow_tf32:
        on.append("TF32 convolutions (torch.backends.cudnn.allow_tf32)")
    if training.packed.on_demand:
        off.append("packed images (each is decoded again whenever it is wanted)")
    elif training.images_on_device:
        on.append("images in memory" if device.type == "cpu" else f"images on {device}")
    elif settings.data.device == "no":
        off.append("images in memory (--data.device no)")
    else:
        off.append("images in memory (more than a quarter of what is free; gathered a batch ahead)")
    if training.compiled:
        on.append("compiled encoder")
    else:
        off.append("compiled encoder" + ("" if settings.compile else " (--compile)"))
    if device.type == "cuda":
        (on if training.graphs else off).append("CUDA graphs" + ("" if settings.cuda_graphs else " (--cuda-graphs)"))
        (off if settings.deterministic else on).append("cuDNN's fastest kernels (--no-deterministic)")
    return f"On: {', '.join(on)}." + (f" Off: {', '.join(off)}." if off else "")


def changes(resumed: Loaded, record: dict[str, Any]) -> list[str]:
    """What about the machine and its software is not as it was when the checkpoint was written."""
    then = {"processes": 1} | resumed.state["environment"]  # older checkpoints are of one process and do not say so
    return [f"{name} {then.get(name)} -> {record.get(name)}" for name in record if then.get(name) != record.get(name)]


def picture_of_views(training: Training, batch: Batch, views: list[Tensor]) -> bytes:
    """Some images and the views that the encoder sees of them, as PNG."""
    rows = []
    for i in range(min(8, len(batch.indices))):
        original = pictures.from_store(batch.images[i].cpu().numpy(), batch.geometry[i].cpu().numpy())
        shown = [
            pictures.from_tensor(denormalize(view[i], recipe.mean, recipe.std))
            for view, recipe in zip(views, training.views.recipes, strict=True)
        ]
        rows.append([original, *shown])
    return pictures.sheet(rows)

"""What `gpu.py` measures, part by part; each is a function of the ground that all stand on."""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import learning
import numpy as np
import step
import torch
import views
from timing import (
    PausedTraining,
    Way,
    alternate,
    bare_step,
    loss_of,
    prepare_bare,
    random_images,
    rows_of,
    simclr,
    synchronize,
)
from torch.utils.flop_counter import FlopCounterMode

from compressl.devices import resolve_precision
from compressl.errors import first_line
from compressl.settings.encoder import EncoderSettings
from compressl.settings.pretrain import PretrainSettings
from compressl.settings.views import ViewsSettings
from compressl.training.loop import pretrain
from compressl.training.setup import prepare

PEAKS = {  # dense bf16 FLOP/s by what the device's name holds: NVIDIA's data sheets, without sparsity
    "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "B200": 2250e12, "A100": 312e12,
    "A10G": 70e12, "L40S": 362e12, "L40": 181e12, "L4": 121e12, "RTX 4090": 165e12, "RTX 3090": 71e12, "A6000": 155e12,
}  # fmt: skip


@dataclass(frozen=True)
class Ground:
    """What every part stands on."""

    data: str
    folder: Path
    device: torch.device
    given: argparse.Namespace
    ends: float  # of time.monotonic()

    def settings(self, **more: Any) -> PretrainSettings:
        """SimCLR on the data with the library's defaults."""
        encoder = EncoderSettings(width=self.given.width, stem="small")
        options = {"batch_size": self.given.batch_size, "device": str(self.device), "encoder": encoder}
        settings = simclr(self.data, self.folder, **(options | more))
        return replace(settings, data=replace(settings.data, cache=self.folder))

    @property
    def left(self) -> float:
        return self.ends - time.monotonic()

    @property
    def precision(self) -> str:
        return resolve_precision("auto", self.device)


def correctness(ground: Ground) -> dict[str, Any]:
    """bf16 against float32 on one batch: the loss, and the direction and length of the whole gradient."""
    found = {}
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    encoder = EncoderSettings(width=ground.given.width, stem="small", zero_init=False)  # with every branch open
    for precision in ("fp32", "bf16"):
        training = prepare(ground.settings(precision=precision, encoder=encoder))
        images = torch.from_numpy(np.asarray(training.packed.images[: ground.given.batch_size])).to(ground.device)
        n = len(images)
        seen = training.views(images, torch.from_numpy(training.packed.geometry[:n]), torch.arange(n), 0)
        loss = loss_of(training.method, seen, precision, torch.Generator(ground.device).manual_seed(0))
        loss.backward()
        gradients = [p.grad.double().flatten() for p in training.method.parameters() if p.grad is not None]
        found[precision] = float(loss.detach()), torch.cat(gradients)
    torch.backends.cudnn.allow_tf32 = tf32
    (loss, gradient), (loss16, gradient16) = found["fp32"], found["bf16"]
    return {
        "loss": loss,
        "loss_bf16": loss16,
        "relative_error": abs(loss16 - loss) / abs(loss),
        "gradient_cosine": float(torch.nn.functional.cosine_similarity(gradient, gradient16, dim=0)),
        "gradient_length": float(gradient16.norm() / gradient.norm()),
    }


def speed(ground: Ground) -> dict[str, Any]:
    """Whole training, bare step, lightly where it is installed; model FLOP utilisation and peak memory."""
    given, device = ground.given, ground.device
    limited = argparse.Namespace(**vars(given) | {"budget_s": min(90.0, ground.left / 4)})
    precisions = list(dict.fromkeys([ground.precision, "fp32"]))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    rows = step.measure(ground.data, ground.folder, device, limited, precisions)
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    flops = flops_of_step(ground) / given.batch_size
    peak = next((value for name, value in PEAKS.items() if name in device_name(device)), None)
    rate = rows[f"whole, {ground.precision}"]["per_second"]
    return {
        "rows": rows,
        "share_of_bare": step.share_of_bare(rows, ground.precision),
        "flops_per_image": flops,
        "peak_flops_assumed": peak,
        "utilisation": None if peak is None else flops * rate / peak,
        "memory": memory,
    }


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def flops_of_step(ground: Ground) -> int:
    """Operations of forward and backward, as torch counts those of convolutions and matrix products."""
    way = bare_step(prepare(ground.settings()))
    with FlopCounterMode(display=False) as counter:
        way(1)
    return int(counter.get_total_flops())


class Stop(Exception):
    """An interruption from outside."""


def resume(ground: Ground) -> dict[str, Any]:
    """Whether a training that was cut off in the middle ends with the very weights of one that was not."""
    batch = min(64, ground.given.batch_size)
    settings = ground.settings(batch_size=batch, epochs=2, save_every_steps=4)
    settings = replace(settings, data=replace(settings.data, limit=4 * batch))

    def weights(name: str, stop_after: int | None = None) -> bytes:
        def after_step(done: int) -> None:
            if done == stop_after:
                raise Stop

        run = pretrain(replace(settings, out=ground.folder / name), after_step=after_step)
        return (run.path / "encoder.safetensors").read_bytes()

    whole, again = weights("whole"), weights("again")
    try:
        weights("resumed", stop_after=4)
    except Stop:
        resumed = weights("resumed")
    same = {"resumed_is_the_same": resumed == whole, "repeat_is_the_same": again == whole}
    return {"steps": 8, "stopped_after": 4} | same


def augmentation(ground: Ground) -> dict[str, Any]:
    """Views a second against the peers that are installed."""
    limited = argparse.Namespace(**vars(ground.given) | {"budget_s": min(45.0, ground.left / 4)})
    return views.measure(ground.device, limited)


def compilation(ground: Ground) -> dict[str, Any]:
    """The bare step as it is, with a compiled encoder, with the graphs of that, and as one CUDA graph of forward and
    backward, which no loop can use (schedules change the objective) but which says what is to be had."""
    if ground.device.type != "cuda":
        return dict.fromkeys(COMPILED, "needs CUDA")
    ways: dict[str, Way] = {"eager": bare_step(prepare(ground.settings()))}
    said = {}
    for name, make in COMPILED.items():
        began = time.monotonic()
        try:
            ways[name] = make(ground)
            said[name] = f"works, ready after {time.monotonic() - began:.0f} s"
        except Exception as error:  # a compiler can fail in any way; what it says is the result
            said[name] = f"falls back: {type(error).__name__}: {first_line(error)}"
    seconds = alternate(ways, ground.given.steps, ground.given.repeats, ground.device, min(30.0, ground.left / 4))
    count = ground.given.steps * ground.given.batch_size
    return said | {"images_per_second": {n: count / statistics.median(runs) for n, runs in seconds.items()}}


def compiled_step(ground: Ground, graphs: bool = False) -> Way:
    training = prepare(ground.settings(compile=True, cuda_graphs=graphs))
    if not training.compiled:
        raise RuntimeError(training.notes[-1])
    way = bare_step(training)
    way(3)
    return way


def graph_step(ground: Ground) -> Way:
    """Forward and backward captured once and replayed; the optimizer, whose learning rate changes, is left outside."""
    training = prepare(ground.settings())
    method, optimizer, device = training.method, training.optimizer, ground.device
    size, n = training.card.size, ground.given.batch_size
    seen = [torch.randn(n, 3, size, size, device=device).to(memory_format=torch.channels_last) for _ in range(2)]

    def both() -> None:
        loss_of(method, seen, training.precision).backward()

    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            both()
            optimizer.zero_grad(set_to_none=True)
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        both()

    def way(steps: int) -> None:
        for _ in range(steps):
            graph.replay()  # gradients are written anew: there were none when it was captured
            optimizer.step()

    way(1)
    synchronize(device)
    return way


def fastest(ground: Ground) -> dict[str, Any]:
    """The training of ``speed`` with all that can be chosen for it."""
    chosen = {"compile": True, "cuda_graphs": True, "deterministic": False}
    return whole_and_bare(ground, ground.settings(**(chosen if ground.device.type == "cuda" else {})))


def large(ground: Ground) -> dict[str, Any]:
    """ResNet-50 at 224 px, from a packed store of 256 px that is gathered a batch ahead, not kept on the device."""
    given = ground.given
    count, stored, side = (16, 24, 16) if given.tiny else (2048, 256, 224)
    encoder = EncoderSettings(name="resnet50", width=given.width)
    settings = ground.settings(encoder=encoder, batch_size=min(128, given.batch_size), views=ViewsSettings(size=side))
    path = str(random_images(ground.folder / "large.npy", count, stored))
    return whole_and_bare(ground, replace(settings, data=replace(settings.data, path=path, device="no")))


def whole_and_bare(ground: Ground, settings: PretrainSettings) -> dict[str, Any]:
    """Images a second of a training and of its bare step."""
    given, precision = ground.given, ground.precision
    training = PausedTraining(replace(settings, out=ground.folder / f"run-{settings.encoder.name}-{settings.compile}"))
    ways = {f"whole, {precision}": training, f"bare, {precision}": prepare_bare(settings)}
    steps = max(1, given.steps // 2)
    seconds = alternate(ways, steps, given.repeats, ground.device, min(30.0, ground.left / 4))
    training.close()
    rows = rows_of(seconds, steps * settings.batch_size)
    return {"rows": rows, "share_of_bare": step.share_of_bare(rows, precision), "batch_size": settings.batch_size}


def learned(ground: Ground) -> dict[str, Any]:
    """As many epochs of the recipe for speed as the time allows; kNN on training images that were held out."""
    given = ground.given
    words = ["--data.cache", str(ground.folder), "--device", str(ground.device), "--encoder.width", str(given.width)]
    if given.tiny:
        words += ["--batch-size", str(given.batch_size)]
    held_out = learning.count_held_out(ground.data)
    settings = learning.configured(ground.data, "cifar10/speed", ground.folder, held_out, words)
    seconds = 0.0 if given.tiny else 0.7 * (ground.left - 30)
    return learning.learn(settings, seconds, "wall", ground.ends - 15, None)


COMPILED = {  # the shortest first: a compilation may take a minute
    "one graph": graph_step, "compile": compiled_step, "compile, graphs": functools.partial(compiled_step, graphs=True),
}  # fmt: skip
PARTS = {  # the last one has the time that is left
    part.__name__: part for part in (correctness, speed, resume, augmentation, compilation, fastest, large, learned)
}

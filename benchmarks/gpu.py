"""All that needs a CUDA device, in one go: right, exact, fast, and what a few minutes of training reach.

    python benchmarks/gpu.py --data cifar10           # a folder of Parquet shards; less than nine minutes

Each part stands for itself: one that fails says why, and the next begins. What is left of ``--budget-s`` at the end is
spent on a training, whose encoder is judged by kNN on training images that it never saw.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import learning
import numpy as np
import step
import torch
import views
from timing import RESULTS, Table, Way, alternate, bare_step, loss_of, random_images, show, simclr, synchronize, write
from torch.utils.flop_counter import FlopCounterMode

from compressl.devices import resolve_device, resolve_precision
from compressl.errors import first_line
from compressl.settings.encoder import EncoderSettings
from compressl.settings.pretrain import PretrainSettings
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
PARTS = (correctness, speed, resume, augmentation, compilation, learned)  # the last with the time that is left


def attempt(part: Callable[[Ground], dict[str, Any]], ground: Ground) -> dict[str, Any]:
    """A part's record, or the sentence of what went wrong."""
    began = time.monotonic()
    try:
        found = part(ground)
    except Exception as error:  # the parts after it may still work, and the machine is there only now
        found = {"error": f"{type(error).__name__}: {first_line(error)}"}
    found["took_s"] = round(time.monotonic() - began, 1)
    print(f"{part.__name__}: {found.get('error', 'done')} ({found['took_s']} s)", flush=True)
    return found


def tables(record: dict[str, Any]) -> list[Table]:
    parts = record["parts"]
    rows = [[name, sentence] for name, part in parts.items() for name, sentence in sentences(name, part)]
    found: list[Table] = [("Everything on one device", ["what", "figure"], rows)]
    if "rows" in parts["speed"]:
        found.append(step.table(record["task"], parts["speed"]["rows"]))
    cases = {name: case for name, case in parts["augmentation"].items() if isinstance(case, dict)}
    return found + views.tables({"devices": {record["environment"]["device"]: cases}, "peers": record["peers"]})


def sentences(name: str, part: dict[str, Any]) -> list[tuple[str, str]]:
    """What a part found, in words."""
    if "error" in part:
        return [(name, part["error"])]
    if name == "correctness":
        agreement = f"loss {part['relative_error']:.1e} off, gradient's cosine {part['gradient_cosine']:.4f}"
        return [("bf16 against float32", f"{agreement}, length {part['gradient_length']:.3f}")]
    if name == "resume":
        labels = {"resumed_is_the_same": "resumed weights", "repeat_is_the_same": "weights of a second run"}
        return [(label, "the same to the bit" if part[key] else "differ") for key, label in labels.items()]
    if name == "speed":
        peak, used, memory = part["peak_flops_assumed"], part["utilisation"], part["memory"]
        known = "no peak is known for this device" if peak is None else f"{used:.1%} of {peak / 1e12:.0f} TFLOP/s"
        return [
            ("share of the bare step", f"{part['share_of_bare']:.1%}"),
            ("model FLOP utilisation", f"{known}; {part['flops_per_image'] / 1e9:.2f} GFLOP an image"),
            ("peak memory of all that trained", "not measured" if memory is None else f"{memory / 1e9:.2f} GB"),
        ]
    if name == "compilation":
        rates = {way: f"; bare, {rate:,.0f} images/s" for way, rate in part.get("images_per_second", {}).items()}
        said = {"eager": "as it is"} | {way: part[way] for way in COMPILED}
        return [(way, sentence + rates.get(way, "")) for way, sentence in said.items()]
    if name == "learned":
        last = part["curve"][-1]
        rows = [(f"kNN after {part['epochs']} epochs", f"{last['knn']:.1%} after {last['seconds']:.0f} s")]
        for level in learning.LEVELS[-2:]:
            seconds = learning.soonest(part["curve"], level)
            rows.append((f"time to {level:.0%} kNN", "not reached" if seconds is None else f"{seconds:.0f} s"))
        return rows
    return []


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="a folder of Parquet shards, or whatever pretrain takes")
    parser.add_argument("--budget-s", type=float, default=520.0)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.width, given.steps, given.threads, given.workers = 1.0, 30, torch.get_num_threads(), 8
    given.clock = "wall"
    if given.tiny:
        given.width, given.batch_size, given.steps, given.repeats, given.threads, given.workers = 0.125, 8, 1, 1, 1, 0
    return given


def main() -> None:
    began, given = time.monotonic(), arguments()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        print("There is no CUDA device here: torch.cuda.is_available() is False.")
        sys.exit(2)
    torch.set_num_threads(given.threads)
    device = resolve_device(given.device)
    with tempfile.TemporaryDirectory() as name:
        ground = Ground(given.data, Path(name), device, given, began + given.budget_s)
        if given.tiny:
            given.data = str(random_images(Path(name) / "images.npy", 80, 16))
            np.save(Path(name) / "images.labels.npy", np.arange(80) % 2)
            ground = replace(ground, data=given.data)
        parts = {part.__name__: attempt(part, ground) for part in PARTS}
    task = f"SimCLR, ResNet-18 of width {given.width:g}, small stem, batch {given.batch_size}, {device_name(device)}"
    content = {"task": task, "parts": parts, "seconds": round(time.monotonic() - began, 1)}
    record = write(given.out, device, ground.precision, given, **content)
    show(record, tables(record), given.out)


if __name__ == "__main__":
    main()

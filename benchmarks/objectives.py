"""A training step of every method against SimCLR's, in one process, in turn; and the memory that it holds.

    python benchmarks/objectives.py
    python benchmarks/methods_page.py        # the page

Forward, backward, optimizer and slow copy on two constant views. The memory is that of all tensors kept from the
forward for the backward pass, weights and views left out: on any device the same, and what grows with the batch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from timing import CLOCKS, Table, arguments, loss_of, show, synchronize, take_step, write
from torch import Tensor

from compressl.devices import prepare_device, resolve_device, resolve_precision
from compressl.methods import Method, create_method
from compressl.models import create_encoder
from compressl.settings.encoder import EncoderSettings
from compressl.settings.methods import METHODS as SETTINGS
from compressl.settings.methods import MVEBSettings
from compressl.settings.pretrain import OptimizerSettings
from compressl.training.optimizers import create_optimizer

BASE = "simclr"
VARIANTS = {name: settings() for name, settings in SETTINGS.items()}
VARIANTS["mveb, siamese"] = MVEBSettings(target="siamese")


class Step:
    """One method on two views that never change."""

    def __init__(self, name: str, views: list[Tensor], width: float, precision: str) -> None:
        self.views, self.precision, self.device = views, precision, views[0].device
        encoder = create_encoder(EncoderSettings(width=width), views[0].shape[-1], seed=0)
        method: Method = create_method(VARIANTS[name], encoder, int(encoder.num_features), seed=0)
        self.method = method.to(self.device).to(memory_format=torch.channels_last)
        self.optimizer = create_optimizer(OptimizerSettings(), self.method)

    def seconds(self, clock: Callable[[], float]) -> float:
        synchronize(self.device)
        began = clock()
        noise = torch.Generator(self.device).manual_seed(0)
        take_step(self.method, self.optimizer, self.views, self.precision, noise)
        synchronize(self.device)
        return clock() - began

    def kept_bytes(self) -> int:
        """Of all storages that the backward pass needs, each counted once."""
        known = [*self.method.parameters(), *self.method.buffers(), *self.views]
        own = {tensor.untyped_storage().data_ptr() for tensor in known}
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = loss_of(self.method, self.views, self.precision, torch.Generator(self.device).manual_seed(0))
        del loss
        return sum(kept.values())


def measure(names: list[str], given: argparse.Namespace, device: torch.device, precision: str) -> dict[str, Any]:
    """For every method: its step time over that of a step of SimCLR right before it, each round; and its memory."""
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(given.batch_size, 3, given.size, given.size, generator=generator) for _ in range(2)]
    views = [view.to(device).contiguous(memory_format=torch.channels_last) for view in views]
    prepare_device(device, deterministic=True)
    base = Step(BASE, views, given.width, precision)
    rows: dict[str, Any] = {}
    clock = CLOCKS[given.clock]
    began = time.monotonic()
    base.seconds(clock)  # memory is allocated, kernels are chosen
    for name in names:  # one at a time: the machine's mood changes, and not all of them fit into memory
        step = Step(name, views, given.width, precision)
        step.seconds(clock)
        pairs = [(base.seconds(clock), step.seconds(clock)) for _ in range(given.repeats)]
        rows[name] = {"ratio": [own / other for other, own in pairs], "kept_mb": step.kept_bytes() / 1e6}
        print(f"{name}: {statistics.median(rows[name]['ratio']):.3f}", flush=True)
        if time.monotonic() - began > given.budget_s:
            break
    return rows


def tables(record: dict[str, Any]) -> list[Table]:
    rows = []
    for name, row in record["rows"].items():
        middle, least, most = statistics.median(row["ratio"]), min(row["ratio"]), max(row["ratio"])
        rows.append([f"`{name}`", f"{middle:.2f}", f"{least:.2f} to {most:.2f}", f"{row['kept_mb']:,.0f}"])
    return [(record["task"], ["method", "step time, SimCLR = 1", "range", "MB kept for the backward pass"], rows)]


def main() -> None:
    parser = arguments(__doc__, "objectives.json", repeats=3)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--width", type=float, default=1.0, help="of the network")
    parser.add_argument("--size", type=int, default=32, help="of the views, pixels")
    parser.add_argument("--methods", default=";".join(VARIANTS), help="separated by semicolons")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    if given.tiny:
        given.repeats, given.batch_size, given.width, given.threads, given.size = 1, 128, 0.0625, 1, 8
    torch.set_num_threads(given.threads)
    device = resolve_device(given.device)
    precision = resolve_precision("auto", device)
    rows = measure(given.methods.split(";"), given, device, precision)
    task = (
        f"ResNet-18 of width {given.width:g}, small stem, {given.size} px, two views, batch {given.batch_size}, "
        "each method's default heads"
    )
    record = write(given.out, device, precision, given, task=task, rows=rows)
    show(record, tables(record), given.out)


if __name__ == "__main__":
    main()

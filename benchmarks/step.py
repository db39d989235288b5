"""The whole training against its bare step, and against lightly's loop: images a second, in one process, in turn.

    python benchmarks/step.py                 # lightly where it is installed

SimCLR, ResNet-18 with the small stem, random images of CIFAR's size. *Whole* is the loop of ``compressl pretrain``
itself: batch, views, forward, backward, optimizer, guards, log. *Bare* is forward, backward and optimizer on two views
that never change. An image counts once, though both its views are computed. The online kNN of the training is timed
once, beside the epoch that it looks at.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import (
    CLOCKS,
    PausedTraining,
    Table,
    Way,
    alternate,
    arguments,
    peer,
    prepare_bare,
    random_images,
    ratio,
    rows_of,
    show,
    simclr,
    synchronize,
    write,
)
from torch.utils.data import DataLoader, Dataset

from compressl.devices import resolve_device, resolve_precision
from compressl.settings.encoder import EncoderSettings
from compressl.training import online
from compressl.training.setup import prepare

LIGHTLY = "lightly, fp32"


def lightly(images: np.ndarray[Any, Any], batch_size: int, device: torch.device, width: float, workers: int) -> Way:
    """lightly's SimCLR for CIFAR-10 in plain PyTorch, in float32 as there.

    Loop: https://docs.lightly.ai/self-supervised-learning/examples/simclr.html. Network, head, loss, transform without
    blur, optimizer and 8 workers: ``docs/source/getting_started/benchmarks/cifar10_benchmark.py`` of its repository.
    ``cj_strength=0.5``: what the docstring of ``SimCLRTransform`` recommends for CIFAR.
    """
    from lightly.data import LightlyDataset
    from lightly.loss import NTXentLoss
    from lightly.models import ResNetGenerator
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform

    resnet = ResNetGenerator("resnet-18", width=width)
    backbone = torch.nn.Sequential(*list(resnet.children())[:-1], torch.nn.AdaptiveAvgPool2d(1)).to(device)
    head = SimCLRProjectionHead(int(512 * width), 512, 128).to(device)
    criterion = NTXentLoss()
    parameters = [*backbone.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=6e-2 * batch_size / 128, momentum=0.9, weight_decay=5e-4)
    transform = SimCLRTransform(input_size=32, cj_strength=0.5, gaussian_blur=0.0)
    dataset = LightlyDataset.from_torch_dataset(Pictures(images, transform))
    loader = DataLoader(dataset, batch_size, shuffle=True, drop_last=True, num_workers=workers)

    def batches() -> Iterator[Any]:
        for _ in itertools.count():
            yield from loader

    stream = batches()

    def way(steps: int) -> None:
        for (x0, x1), _, _ in itertools.islice(stream, steps):
            z0, z1 = (head(backbone(x.to(device)).flatten(start_dim=1)) for x in (x0, x1))
            loss = criterion(z0, z1)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return way


class Pictures(Dataset[Any]):
    """Transformed PIL images and a class, as ``torchvision.datasets.CIFAR10`` gives them."""

    def __init__(self, images: np.ndarray[Any, Any], transform: Any) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), 0


def measure(
    data: Path | str, folder: Path, device: torch.device, given: argparse.Namespace, precisions: list[str]
) -> dict[str, Any]:
    """Images a second of the whole training and of the bare step in each precision, and of lightly on random images."""
    encoder = EncoderSettings(width=given.width, stem="small")
    ways: dict[str, Way] = {}
    trainings = []
    for precision in precisions:
        options: dict[str, Any] = {"batch_size": given.batch_size, "precision": precision, "device": str(device)}
        trainings.append(PausedTraining(simclr(data, folder, encoder=encoder, **options)))
        ways[f"whole, {precision}"] = trainings[-1]
        ways[f"bare, {precision}"] = prepare_bare(simclr(data, folder, encoder=encoder, **options))
    if peer("lightly"):
        images = np.random.default_rng(0).integers(0, 256, (16 if given.tiny else 50_000, 32, 32, 3), dtype=np.uint8)
        ways[LIGHTLY] = lightly(
            images, given.batch_size, device, given.width, given.workers if given.clock == "wall" else 0
        )
    seconds = alternate(ways, given.steps, given.repeats, device, given.budget_s, CLOCKS[given.clock])
    for training in trainings:
        training.close()
    return rows_of(seconds, given.steps * given.batch_size)


def online_knn(data: Path | str, folder: Path, device: torch.device, given: argparse.Namespace) -> dict[str, float]:
    """Seconds of one online kNN score, and how many steps an epoch has."""
    encoder = EncoderSettings(width=given.width, stem="small")
    training = prepare(
        simclr(data, folder, encoder=encoder, batch_size=given.batch_size, device=str(device), knn_every=1)
    )
    synchronize(device)
    began = CLOCKS[given.clock]()
    online.knn_score(training)
    synchronize(device)
    return {"seconds": CLOCKS[given.clock]() - began, "steps_per_epoch": training.steps_per_epoch}


def share_of_bare(rows: dict[str, Any], precision: str) -> float:
    """The bare step's time as a share of the whole training's, median over rounds."""
    whole, bare = (rows[f"{kind}, {precision}"]["seconds"] for kind in ("whole", "bare"))
    return float(np.median(np.array(bare) / np.array(whole)))


def table(task: str, rows: dict[str, Any]) -> Table:
    found = []
    for name, row in rows.items():
        kind, precision = name.split(", ")
        share = f"{share_of_bare(rows, precision):.1%}" if kind == "whole" else ""
        others = ""
        if kind == "whole" and LIGHTLY in rows:
            others = ratio(rows[LIGHTLY]["seconds"], row["seconds"])
        found.append([name, f"{row['per_second']:,.1f}", share, others])
    if LIGHTLY not in rows:
        found.append(["lightly", "not installed", "", ""])
    head = ["training", "images/s", "share of the bare step", "faster than lightly by"]
    return task, head, found


def tables(record: dict[str, Any]) -> list[Table]:
    rows, look = record["rows"], record["online_knn"]
    name = next(iter(rows))
    epoch = float(np.median(rows[name]["seconds"])) / record["steps"] * look["steps_per_epoch"]
    share = [f"{look['seconds']:.1f} s", f"{epoch:,.0f} s", f"{look['seconds'] / epoch:.1%}"]
    titles = ["one online kNN score", f"an epoch ({name})", "share of the epochs that have one"]
    return [table(record["task"], rows), ("Looks from outside, while it trains", titles, [share])]


def main() -> None:
    parser = arguments(__doc__, "step.json", repeats=5)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--width", type=float, default=1.0, help="of the network")
    parser.add_argument("--steps", type=int, default=None, help="in a round; default 2, on CUDA 50")
    parser.add_argument("--workers", type=int, default=8, help="of lightly's loader")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    if given.tiny:
        given.repeats, given.steps, given.batch_size, given.width, given.threads, given.workers = 1, 1, 4, 0.125, 1, 0
    torch.set_num_threads(given.threads)
    device = resolve_device(given.device)
    given.steps = given.steps or (50 if device.type == "cuda" else 2)
    precision = resolve_precision("auto", device)
    with tempfile.TemporaryDirectory() as name:
        data = random_images(Path(name) / "images.npy", 16 if given.tiny else 50_000, 32)
        np.save(data.with_name("images.labels.npy"), np.arange(16 if given.tiny else 50_000) % 10)
        rows = measure(data, Path(name), device, given, list(dict.fromkeys([precision, "fp32"])))
        look = online_knn(data, Path(name), device, given)
    task = f"SimCLR, ResNet-18 of width {given.width:g}, small stem, 32 px, batch {given.batch_size}, {device.type}"
    record = write(given.out, device, precision, given, task=task, rows=rows, steps=given.steps, online_knn=look)
    show(record, tables(record), given.out)


if __name__ == "__main__":
    main()

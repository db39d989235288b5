"""Two libraries' augmentations and ours: views a second, in one process, in turn.

    python benchmarks/views.py                # every device that is there; peers that are installed

The same operators with the same ranges and probabilities, from a uint8 batch to a normalised float batch. Each library
is used as its own documentation says it is fastest; ``--threads`` are our threads, kornia's, and torchvision's workers.
"""

from __future__ import annotations

import argparse
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from timing import CLOCKS, Table, Way, alternate, arguments, peer, ratio, rows_of, show, write
from torch.utils.data import DataLoader, Dataset

from compressl.settings.views import ViewRecipe, ViewsSettings
from compressl.views import Views
from compressl.views.blur import kernel_size

OURS = "compressl"


@dataclass(frozen=True)
class Case:
    """Stored side, side of a view, recipe, images in a batch."""

    stored: int
    size: int
    recipe: str
    batch: int

    def __str__(self) -> str:
        return f"{self.stored} -> {self.size} px, {self.recipe}, batch {self.batch}"


CASES = (Case(32, 32, "small", 256), Case(96, 96, "simclr", 128), Case(256, 224, "simclr", 64))


def ours(recipe: ViewRecipe, images: torch.Tensor, compile: bool = False) -> Way:
    views, n = Views((recipe,), seed=0, compile=compile), len(images)
    if compile and (problem := views.try_compile(n, *images.shape[1:3], images.device, torch.contiguous_format)):
        print(f"{OURS} is not compiled: {problem}")
    geometry, indices = torch.full((n, 2), images.shape[1]), torch.arange(n)

    def way(batches: int) -> None:
        for epoch in range(batches):
            views(images, geometry, indices, epoch)

    return way


def kornia(recipe: ViewRecipe, images: torch.Tensor, cropping: str) -> Way:
    """A chain of batched operators, as in https://kornia.readthedocs.io/en/latest/augmentation.html.

    ``slice`` is its default and what its docstring recommends "for efficiency"; ``resample`` crops and resizes the
    batch at once.
    """
    import kornia.augmentation as k

    jitter = (recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue)
    scale, ratio = (recipe.min_scale, recipe.max_scale), (recipe.min_ratio, recipe.max_ratio)
    chain = [
        k.RandomResizedCrop((recipe.size, recipe.size), scale=scale, ratio=ratio, cropping_mode=cropping),
        k.RandomHorizontalFlip(p=recipe.flip),
        k.ColorJitter(*jitter, p=recipe.jitter),
        k.RandomGrayscale(p=recipe.grayscale),
    ]
    if recipe.blur:
        kernel, sigma = kernel_size(recipe.size), (recipe.blur_min_sigma, recipe.blur_max_sigma)
        chain.append(k.RandomGaussianBlur((kernel, kernel), sigma, p=recipe.blur))
    augment = torch.nn.Sequential(*chain, k.Normalize(mean=recipe.mean, std=recipe.std))

    @torch.no_grad()
    def way(batches: int) -> None:
        for _ in range(batches):
            augment(images.permute(0, 3, 1, 2).float() / 255)

    return way


def torchvision(recipe: ViewRecipe, images: torch.Tensor, pil: bool, workers: int, device: torch.device) -> Way:
    """An image at a time in a ``DataLoader``, which is where torchvision's page on performance has its figures hold:
    https://docs.pytorch.org/vision/stable/transforms.html#performance-considerations (uint8 tensors, float last).
    """
    from torchvision.transforms import v2

    jitter = v2.ColorJitter(recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue)
    scale, ratio = (recipe.min_scale, recipe.max_scale), (recipe.min_ratio, recipe.max_ratio)
    chain = [
        v2.RandomResizedCrop(recipe.size, scale=scale, ratio=ratio, antialias=True),
        v2.RandomHorizontalFlip(recipe.flip),
        v2.RandomApply([jitter], recipe.jitter),
        v2.RandomGrayscale(recipe.grayscale),
    ]
    if recipe.blur:
        blur = v2.GaussianBlur(kernel_size(recipe.size), (recipe.blur_min_sigma, recipe.blur_max_sigma))
        chain.append(v2.RandomApply([blur], recipe.blur))
    chain += [v2.ToImage()] if pil else []
    chain += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(recipe.mean, recipe.std)]

    @functools.cache  # workers stay from one call to the next
    def loader(batches: int) -> DataLoader[torch.Tensor]:
        data = Pictures(images.cpu().numpy(), len(images) * batches, v2.Compose(chain), pil)
        return DataLoader(data, len(images), num_workers=workers, persistent_workers=workers > 0)

    def way(batches: int) -> None:
        for batch in loader(batches):
            batch.to(device)

    return way


class Pictures(Dataset[Any]):
    """Images in memory, again and again, as PIL images or uint8 tensors [3, H, W]."""

    def __init__(self, images: np.ndarray[Any, Any], length: int, transform: Any, pil: bool) -> None:
        self.images, self.length, self.transform, self.pil = images, length, transform, pil

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        pixels = self.images[index % len(self.images)]
        return self.transform(Image.fromarray(pixels) if self.pil else torch.from_numpy(pixels).permute(2, 0, 1))


def ways(case: Case, device: torch.device, workers: int) -> dict[str, Way]:
    """Ours, and those of the peers that are installed."""
    recipe = ViewsSettings(recipe=case.recipe, size=case.size).resolve(case.size)[0]  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch, case.stored, case.stored, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
    found = {OURS: ours(recipe, images)}
    if device.type != "cpu":
        found[f"{OURS}, compiled"] = ours(recipe, images, compile=True)
    if peer("kornia"):
        found["kornia, slice"] = kornia(recipe, images, "slice")
        found["kornia, resample"] = kornia(recipe, images, "resample")
    if peer("torchvision"):
        found["torchvision v2, tensors"] = torchvision(recipe, images, False, workers, device)
        found["torchvision v2, PIL"] = torchvision(recipe, images, True, workers, device)
    return found


def measure(device: torch.device, given: argparse.Namespace, units: int = 4) -> dict[str, Any]:
    """Views a second of every case on one device."""
    cases = {}
    for case in CASES if not given.tiny else [Case(16, 16, "simclr", 4)]:
        found = ways(case, device, given.threads if given.clock == "wall" else 0)
        seconds = alternate(found, units, given.repeats, device, given.budget_s / len(CASES), CLOCKS[given.clock])
        cases[str(case)] = rows_of(seconds, units * case.batch)
    return cases


def tables(record: dict[str, Any]) -> list[Table]:
    found: list[Table] = []
    for device, cases in record["devices"].items():
        for case, ways in cases.items():
            base = ways[OURS]["seconds"]
            rows = [[n, f"{w['per_second']:,.0f}", ratio(w["seconds"], base)] for n, w in ways.items()]
            rows[0][2] = ""
            absent = [name for name in ("kornia", "torchvision") if not record["peers"][name]]
            rows += [[name, "not installed", ""] for name in absent]
            found.append((f"{device}: {case}", ["library", "views/s", "ours is faster by"], rows))
    return found


def main() -> None:
    given = arguments(__doc__, "views.json").parse_args()
    if given.tiny:
        given.repeats, given.threads = 1, 1
    torch.set_num_threads(given.threads)
    devices = [torch.device(name) for name in ("cpu", "cuda") if name == "cpu" or torch.cuda.is_available()]
    found = {device.type: measure(device, given) for device in devices}
    record = write(given.out, devices[-1], "fp32", given, devices=found)
    show(record, tables(record), given.out)


if __name__ == "__main__":
    main()

"""The built-in images: handwritten digits (real scans) set into nuisance, so that there is something to discard.

scikit-learn carries 1797 scans of 8 x 8 pixels (Alpaydin and Kaynak 1998, UCI Optical Recognition of Handwritten
Digits) and two photographs. A *rendering* enlarges a scan smoothly, moves, turns and scales it, gives it and its
background a random colour each, brighter or darker, and lays a faint piece of a photograph behind it. The class is the
digit; everything else is nuisance. The digit always stands out: its brightness differs from the background's by at
least :data:`CONTRAST`, several times the texture's deviation.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from compressl import randomness
from compressl.data.decode import Pixels
from compressl.data.source import Family, Labels, digest, stratified

SIDE = 32  # pixels
TRAIN_RENDERINGS = 4  # of each scan
TEST_RENDERINGS = 2
MIN_EXTENT, MAX_EXTENT = 16.0, 28.0  # pixels that the 8 of a scan are enlarged to; the digit's box stays in the image
TURN = 15.0  # degrees either way
CONTRAST = (0.35, 0.65)  # difference in brightness of digit and background
CHROMA = 0.35  # largest deviation of a colour channel from a colour's brightness
TEXTURE = (0.02, 0.07)  # standard deviation of the background's texture
MAX_RENDERINGS = 64  # of one scan; keeps every (scan, rendering) on a random draw of its own
_VERSION = 2  # raise it when anything above or below changes the pixels
_DRAWS = 20  # uniforms that one rendering uses


class DigitsSource:
    """Digits in nuisance, uint8 [N, 32, 32, 3]; ``part`` is "train" or "test", which share no scan.

    Entry i is rendering ``i // scans`` of scan ``i % scans`` of the part. Its pixels depend on the seed, the scan and
    the rendering alone.

    >>> source = DigitsSource("test", renderings=1)
    >>> len(source), source.describe(0)
    (359, 'digits scan 4 rendering 0')
    """

    def __init__(self, part: str, renderings: int | None = None, seed: int = 0) -> None:
        scans, digits = _scans()
        train, test = stratified(digits, len(digits), seed=0)  # one fixed split, whatever the seed of the nuisance
        own = train if part == "train" else test
        self.renderings = renderings or (TRAIN_RENDERINGS if part == "train" else TEST_RENDERINGS)
        if not 1 <= self.renderings <= MAX_RENDERINGS:
            raise ValueError(f"renderings is between 1 and {MAX_RENDERINGS}; it is {renderings}")
        self.name = f"digits-{part}"
        self.note = ""
        self.seed = seed
        self.scans = np.tile(own, self.renderings)  # int64 [N]: the scan of each entry
        self.rendering = np.repeat(np.arange(self.renderings), len(own))
        self.labels: Labels | None = digits[self.scans]
        self.class_names: list[str] | None = [str(digit) for digit in range(10)]
        self.images: Pixels = render(scans[self.scans], self.scans, self.rendering, seed)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Pixels:
        pixels: Pixels = self.images[index]
        return pixels

    def describe(self, index: int) -> str:
        return f"digits scan {self.scans[index]} rendering {self.rendering[index]}"

    def fingerprint(self) -> str:
        return digest([("digits", _VERSION, self.name, self.renderings, self.seed)])


def digits_family() -> Family:
    return Family(
        {"train": lambda: DigitsSource("train"), "test": lambda: DigitsSource("test")},
        how="no scan of a digit is in both",
    )


def render(scans: Pixels, numbers: NDArray[np.int64], renderings: NDArray[np.int64], seed: int) -> Pixels:
    """Scans uint8 [N, 8, 8] (0..16), their numbers and which rendering of each: images uint8 [N, 32, 32, 3]."""
    counters = torch.from_numpy(numbers * MAX_RENDERINGS + renderings)
    draw = iter(randomness.uniforms(randomness.key("digits", seed), counters, _DRAWS).T)
    ink = _placed(torch.from_numpy(scans).float()[:, None] / 16, next(draw), next(draw), next(draw), next(draw))
    dark = 0.08 + 0.84 * next(draw)  # brightness of the background
    contrast = CONTRAST[0] + (CONTRAST[1] - CONTRAST[0]) * next(draw)
    sign = torch.where(next(draw) < dark, -1.0, 1.0)  # a bright background mostly has a dark digit
    sign = torch.where(dark + contrast > 0.98, -1.0, torch.where(dark - contrast < 0.02, 1.0, sign))
    bright = (dark + sign * contrast).clamp(0.02, 0.98)
    background = _colours(dark, torch.stack([next(draw) for _ in range(3)], 1))[:, :, None, None]
    foreground = _colours(bright, torch.stack([next(draw) for _ in range(3)], 1))[:, :, None, None]
    amount = TEXTURE[0] + (TEXTURE[1] - TEXTURE[0]) * next(draw)
    background = background + amount[:, None, None, None] * _textures(next(draw), next(draw), next(draw))
    images = (background * (1 - ink) + foreground * ink).clamp(0, 1)
    packed: Pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return packed


def _placed(scans: Tensor, extent: Tensor, turn: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Ink in 0..1, [N, 1, 32, 32], from scans [N, 1, 8, 8] and four uniforms [N]."""
    scale = SIDE / (MIN_EXTENT + (MAX_EXTENT - MIN_EXTENT) * extent)
    angle = torch.deg2rad(TURN * (2 * turn - 1))
    room = 1 - 1 / scale  # how far the box's centre may lie from the image's, in half-sides
    dx, dy = room * (2 * across - 1), room * (2 * down - 1)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    theta = torch.stack([cos, -sin, -cos * dx + sin * dy, sin, cos, -sin * dx - cos * dy], 1).view(-1, 2, 3)
    grid = functional.affine_grid(theta, [len(scans), 1, SIDE, SIDE], align_corners=False)
    smooth = functional.grid_sample(scans, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    return ((smooth - 0.15) / 0.55).clamp(0, 1)  # steeper than the scan: strokes with an edge rather than a haze


def _colours(brightness: Tensor, uniform: Tensor) -> Tensor:
    """RGB [N, 3] whose channel mean is the brightness [N] exactly, as far from grey as fits in 0..1."""
    tint = 2 * uniform - 1
    tint = CHROMA * (tint - tint.mean(1, keepdim=True))
    room = torch.minimum(brightness, 1 - brightness)
    tint = tint * (room / tint.abs().amax(1).clamp_min(1e-6)).clamp(max=1)[:, None]
    return brightness[:, None] + tint


def _textures(which: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Pieces of the photographs, [N, 3, 32, 32], each with mean 0 and deviation 1, from uniforms [N]."""
    windows = _photographs().unfold(2, SIDE, 1).unfold(3, SIDE, 1)  # a view: [photograph, 3, top, left, 32, 32]
    photograph = (which * windows.shape[0]).long()
    piece = windows[photograph, :, (top * windows.shape[2]).long(), (left * windows.shape[3]).long()]
    piece = piece - piece.mean((1, 2, 3), keepdim=True)
    return piece / piece.std((1, 2, 3), keepdim=True).clamp_min(0.02)  # flat sky stays flat


@cache
def _scans() -> tuple[Pixels, NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images.astype(np.uint8), bunch.target.astype(np.int64)


@cache
def _photographs() -> Tensor:
    """scikit-learn's two photographs at half their size, float32 [2, 3, 213, 320] in 0..1."""
    from sklearn.datasets import load_sample_images

    photographs = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2).float() / 255
    return functional.avg_pool2d(photographs, 2)

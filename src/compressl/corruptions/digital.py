"""Contrast, elastic transforms, pixels and JPEG (Hendrycks and Dietterich 2019, section 4.1)."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from compressl.corruptions.filters import gaussian, mirror, reflect, sample
from compressl.corruptions.kind import Draws, Kind, Numbers, single

_FIXED_POINT = 2.0**22  # Pillow's coefficients are whole multiples of its inverse


def contrast(x: Tensor, draws: Draws, numbers: Numbers) -> Tensor:
    """mean + c (x - mean), the mean of each channel of the image."""
    (c,) = numbers
    mean = x.mean((2, 3), keepdim=True)
    return mean + c * (x - mean)


def saturate(x: Tensor, draws: Draws, numbers: Numbers) -> Tensor:
    """The saturation of HSV becomes a s + b, at most 1. Grey has the hue of red, as usual."""
    a, b = numbers
    value = x.amax(1, keepdim=True)
    away = value - x  # value * saturation * a share that the hue gives
    chroma = away.amax(1, keepdim=True)
    saturation = chroma / value.clamp(min=1 / 255)
    share = torch.where(chroma > 0, away / chroma.clamp(min=1e-3), x.new_tensor([0.0, 1, 1]).view(3, 1, 1))
    return value * (1 - (a * saturation + b).clamp(0, 1) * share)


def elastic_transform(x: Tensor, draws: Draws, numbers: Numbers) -> Tensor:
    """A random affine map, then displacements by blurred uniform noise (Simard et al. 2003); both bilinear.

    Numbers are multiples of the side: strength and blur of the displacements, and how far the three points that
    define the affine map are moved.
    """
    size, n = x.shape[-1], len(x)
    strength, sigma, shift = (size * number for number in numbers)
    middle, third = size // 2, size // 3
    points = x.new_tensor([[1.0, 1], [1, -1], [-1, -1]]) * third + middle  # (column, row) each
    moved = points + shift * (2 * draws.uniform(3, 2) - 1)
    one = x.new_ones(n, 3, 1)
    back = torch.linalg.solve(torch.cat([moved, one], 2), points.expand(n, 3, 2))  # (column, row, 1) -> its source
    row, column = torch.meshgrid(*[torch.arange(size, dtype=x.dtype, device=x.device)] * 2, indexing="ij")
    source = torch.stack([column, row, torch.ones_like(row)], 2).flatten(0, 1) @ back  # [B, S * S, 2]
    columns, rows = source.view(n, size, size, 2).unbind(3)
    x = sample(x, rows, columns, mirror)
    flow = strength * gaussian(2 * draws.uniform(2, size, size) - 1, sigma, reflect, truncate=3)
    return sample(x, row + flow[:, 1], column + flow[:, 0], reflect)


def pixelate(x: Tensor, draws: Draws, numbers: Numbers) -> Tensor:
    """Reduced to c times the side and enlarged again, Pillow's box filter with its roundings."""
    size = x.shape[-1]
    small = max(1, int(size * numbers[0]))
    levels = (255 * x).round()
    return _box_resize(_box_resize(levels, small), size) / 255


def _box_resize(levels: Tensor, target: int) -> Tensor:
    """Values 0 to 255 [B, 3, S, S] to [B, 3, target, target]: columns, rounded, then rows, rounded."""
    if target == levels.shape[-1]:
        return levels
    matrix = box_matrix(levels.shape[-1], target).to(levels)
    levels = ((levels @ matrix.T + _FIXED_POINT / 2) / _FIXED_POINT).floor().clamp(0, 255)
    return ((matrix @ levels + _FIXED_POINT / 2) / _FIXED_POINT).floor().clamp(0, 255)


def box_matrix(size: int, target: int) -> Tensor:
    """Pillow's coefficients of a box filter from ``size`` to ``target`` pixels, times 2^22, float64 [target, size]."""
    scale = size / target
    width = max(scale, 1.0)
    center = (torch.arange(target, dtype=torch.float64)[:, None] + 0.5) * scale
    pixel = torch.arange(size, dtype=torch.float64)
    first, last = ((center + side * width / 2 + 0.5).floor().clamp(0, size) for side in (-1, 1))
    offset = (pixel + 0.5 - center) / width
    weight = ((pixel >= first) & (pixel < last) & (offset > -0.5) & (offset <= 0.5)).double()
    return (weight / weight.sum(1, keepdim=True) * _FIXED_POINT + 0.5).floor()


def jpeg_compression(x: Tensor, draws: Draws, numbers: Numbers) -> Tensor:
    """Pillow's JPEG of quality c and back, image by image in threads."""
    quality = int(numbers[0])
    pixels = (255 * x).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def there_and_back(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=quality)
        return np.asarray(Image.open(stream).convert("RGB"))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        done = np.stack(list(pool.map(there_and_back, pixels)))
    return torch.from_numpy(done).permute(0, 3, 1, 2).to(x) / 255


_IMAGENET_SIDE = 244 / 224  # the published numbers are multiples of 244 for images of 224 pixels

TABLE = {
    "contrast": Kind(contrast, single(0.75, 0.5, 0.4, 0.3, 0.15), single(0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": Kind(  # strength and blur of the displacements, shift of the affine map, in sides
        elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        tuple(
            (a * _IMAGENET_SIDE, b * _IMAGENET_SIDE, c * _IMAGENET_SIDE)
            for a, b, c in ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
        ),
    ),
    "pixelate": Kind(pixelate, single(0.95, 0.9, 0.85, 0.75, 0.65), single(0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": Kind(jpeg_compression, single(80, 65, 58, 50, 40), single(25, 18, 15, 10, 7)),
    "saturate": Kind(
        saturate,
        ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    ),
}

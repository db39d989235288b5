"""Blur by a lens, by glass, by motion (Hendrycks and Dietterich 2019, section 4.1)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from compressl.corruptions.filters import (
    band,
    clipped_zoom,
    correlate,
    gaussian,
    gaussian_taps,
    mirror,
    motion,
    separable,
)
from compressl.corruptions.kind import Draws, Kind, Numbers, single


def defocus_blur(x: Tensor, draws: Draws, numbers: Numbers) -> Tensor:
    """Correlation with a disk of radius r whose edge is softened by a Gaussian."""
    return correlate(x, disk(*numbers))


def disk(radius: float, sigma: float) -> Tensor:
    """A disk of whole pixels, blurred by a Gaussian of 3 x 3 pixels (5 x 5 from radius 8 on), float64 [K, K].

    On 17 x 17 pixels, or as many as a larger disk needs. Its sum is 1; 1.013 and 1.011 at radii 8 and 10, where the
    blur of the published kernels meets a mirroring border.
    """
    half, reach = (8, 1) if radius <= 8 else (math.ceil(radius), 2)
    offset = torch.arange(-half, half + 1, dtype=torch.float64)
    kernel = (offset[:, None].square() + offset.square() <= radius**2).double()
    return separable(kernel / kernel.sum(), band(gaussian_taps(sigma, reach), len(offset), mirror))


def glass_blur(x: Tensor, draws: Draws, numbers: Numbers) -> Tensor:
    """Gaussian blur, cut to whole levels, pixels replaced by neighbours, Gaussian blur again.

    From the last pixel to the first, each takes the value that a pixel at most ``delta`` away has by then. (The
    published code means to exchange the two, but assigns one to the other; so the published sets are made, and so it
    is here.) Where a neighbour has been replaced already, its own source counts: the chains are followed in
    log2(S^2) steps for all pixels of all images at once.
    """
    sigma, delta, iterations = numbers[0], int(numbers[1]), int(numbers[2])
    x = (255 * gaussian(x, sigma) + 1e-9).floor() / 255
    for _ in range(iterations):
        source = _sources(draws.uniform(2, *x.shape[2:]), delta)
        x = x.flatten(2).gather(2, source[:, None].expand(-1, x.shape[1], -1)).view_as(x)
    return gaussian(x, sigma)


def _sources(u: Tensor, delta: int) -> Tensor:
    """Where each pixel's value comes from, int64 [B, S^2], by uniforms [B, 2, S, S]."""
    n, _, size, _ = u.shape
    place = torch.arange(size, device=u.device)
    moved = (place > delta) & (place <= size - delta)
    inside = (moved[:, None] & moved).flatten().expand(n, -1)
    down, right = (u * (2 * delta)).floor().long().sub(delta).unbind(1)  # -delta ... delta - 1
    pixel = torch.arange(size * size, device=u.device).expand(n, -1)
    neighbor = ((place[:, None] + down) * size + place + right).flatten(1)
    neighbor = torch.where(inside, neighbor, pixel)
    replaced = inside & (neighbor > pixel) & inside.gather(1, neighbor)  # the later pixels go first
    last = torch.where(replaced, neighbor, pixel)
    for _ in range((size * size).bit_length()):
        last = last.gather(1, last)
    return neighbor.gather(1, last)


def motion_blur(x: Tensor, draws: Draws, numbers: Numbers) -> Tensor:
    """Half a Gaussian along a direction between -45 and 45 degrees, rounded to 256 levels as by ImageMagick."""
    radius, sigma = numbers
    return (255 * motion(x, radius, sigma, 90 * draws.uniform(1)[:, 0] - 45)).round() / 255


def zoom_blur(x: Tensor, draws: Draws, numbers: Numbers) -> Tensor:
    """The mean of the image and of its middle enlarged by 1, 1 + step, ... below ``stop``."""
    stop, step = numbers
    factors = np.arange(1, stop, step)
    out = x.clone()
    for factor in factors:
        out += separable(x, clipped_zoom(x.shape[-1], float(factor)))
    return out / (len(factors) + 1)


def gaussian_blur(x: Tensor, draws: Draws, numbers: Numbers) -> Tensor:
    """Gaussian blur; the border pixel is repeated."""
    return gaussian(x, numbers[0])


TABLE = {
    "defocus_blur": Kind(  # radius, deviation of the edge
        defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass_blur": Kind(  # deviation, greatest distance, times
        glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion_blur": Kind(  # radius, deviation
        motion_blur,
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "zoom_blur": Kind(  # stop, step
        zoom_blur,
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    ),
    "gaussian_blur": Kind(gaussian_blur, single(0.4, 0.6, 0.7, 0.8, 1), single(1, 2, 3, 4, 6)),
}

"""Noise of each pixel on its own (Hendrycks and Dietterich 2019, section 4.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compressl.corruptions.kind import Draws, Kind, Numbers, single


def gaussian_noise(x: Tensor, draws: Draws, numbers: Numbers) -> Tensor:
    """x + c n, n standard normal."""
    (c,) = numbers
    return x + c * draws.normal(*x.shape[1:])


def shot_noise(x: Tensor, draws: Draws, numbers: Numbers) -> Tensor:
    """k / c, k Poisson with mean c x: the variance is x / c."""
    (c,) = numbers
    return poisson((255 * x).round().long(), c / 255, draws.uniform(*x.shape[1:])) / c


def poisson(levels: Tensor, scale: float, uniforms: Tensor) -> Tensor:
    """Poisson numbers of mean ``scale`` * level, levels 0 to 255, by the inverse of their distribution function.

    The distribution functions of all levels stand one after the other, the level added, so that they rise together
    and one search serves every pixel.
    """
    mean = scale * torch.arange(256, dtype=torch.float64, device=levels.device)[:, None]
    most = int(255 * scale + 10 * math.sqrt(255 * scale) + 20)
    k = torch.arange(most, dtype=torch.float64, device=levels.device)
    rising = (torch.xlogy(k, mean) - mean - torch.lgamma(k + 1)).exp().cumsum(1).clamp_(max=1)
    rising[:, -1] = 1
    rising += torch.arange(256, device=levels.device)[:, None]
    found = torch.searchsorted(rising.flatten(), (levels + uniforms).flatten(), right=True).view_as(levels)
    return (found - levels * most).double()


def impulse_noise(x: Tensor, draws: Draws, numbers: Numbers) -> Tensor:
    """A share c of the values, each channel on its own, becomes 0 or 1, either as often."""
    (c,) = numbers
    u = draws.uniform(*x.shape[1:])
    return torch.where(u < c, (u < c / 2).double(), x)


def speckle_noise(x: Tensor, draws: Draws, numbers: Numbers) -> Tensor:
    """x + c x n, n standard normal."""
    (c,) = numbers
    return x + c * x * draws.normal(*x.shape[1:])


TABLE = {
    "gaussian_noise": Kind(gaussian_noise, single(0.04, 0.06, 0.08, 0.09, 0.10), single(0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": Kind(shot_noise, single(500, 250, 100, 75, 50), single(60, 25, 12, 5, 3)),
    "impulse_noise": Kind(impulse_noise, single(0.01, 0.02, 0.03, 0.05, 0.07), single(0.03, 0.06, 0.09, 0.17, 0.27)),
    "speckle_noise": Kind(speckle_noise, single(0.06, 0.1, 0.12, 0.16, 0.2), single(0.15, 0.2, 0.35, 0.45, 0.6)),
}

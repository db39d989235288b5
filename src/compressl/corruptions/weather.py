"""Snow, frost, fog and brighter light (Hendrycks and Dietterich 2019, section 4.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compressl.corruptions.filters import clipped_zoom, motion, plasma, separable
from compressl.corruptions.kind import Draws, Kind, Numbers, single
from compressl.corruptions.spatter import spatter

NEEDLES = 32  # crystals of the frost
_TINT = (0.86, 0.93, 1.0)  # ice is a little blue


def snow(x: Tensor, draws: Draws, numbers: Numbers) -> Tensor:
    """Flakes, smeared downwards, and the same turned by half a turn, over a whitened image.

    Flakes are normal noise, enlarged, without what lies below a threshold; x becomes
    c x + (1 - c) max(x, 1.5 grey + 0.5).
    """
    mean, deviation, zoom, threshold, radius, sigma, c = numbers
    size = x.shape[-1]
    flakes = separable(mean + deviation * draws.normal(1, size, size), clipped_zoom(size, zoom))
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp(0, 1)
    flakes = motion(flakes, radius, sigma, -135 + 90 * draws.uniform(1)[:, 0])
    grey = (x * x.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    whitened = c * x + (1 - c) * torch.maximum(x, 1.5 * grey + 0.5)
    return whitened + flakes + flakes.flip(2, 3)


def frost(x: Tensor, draws: Draws, numbers: Numbers) -> Tensor:
    """a x + b texture.

    The published sets use photographs of frost, which may not be passed on; the texture here is ours
    (:func:`frost_texture`), with the published a and b. Figures of this kind are not comparable with published ones.
    """
    a, b = numbers
    return a * x + b * frost_texture(draws, x.shape[-1])


def frost_texture(draws: Draws, size: int) -> Tensor:
    """Ice on a pane, ours: bluish crystal needles that taper off, on a plasma fractal. float64 [B, 3, S, S]."""
    haze = plasma(draws, size, 1.8)
    u = draws.uniform(NEEDLES, 5)[..., None, None]  # [B, needles, 5, 1, 1]
    top, left, turn, length, width = u.unbind(2)
    place = torch.arange(size, dtype=torch.float64, device=u.device)
    length, width = size * (0.15 + 0.45 * length), size * (0.008 + 0.022 * width)
    crystals = torch.zeros_like(haze)
    for i in range(NEEDLES):  # one at a time: an image of each would be large
        down, right = place[:, None] - size * top[:, i], place - size * left[:, i]  # [B, S, 1] and [B, 1, S]
        cos, sin = (f(2 * math.pi * turn[:, i]) for f in (torch.cos, torch.sin))
        along = torch.minimum((right * cos + down * sin).clamp(min=0), length[:, i])
        square = (right - along * cos).square() + (down - along * sin).square()
        needle = (-0.5 * square / width[:, i].square()).exp() * (1 - along / length[:, i])
        crystals = torch.maximum(crystals, needle)
    brightness = 0.15 + 0.5 * haze + 0.6 * crystals
    return brightness[:, None] * brightness.new_tensor(_TINT).view(3, 1, 1)


def fog(x: Tensor, draws: Draws, numbers: Numbers) -> Tensor:
    """(x + c plasma) m / (m + c), m the largest value of the image."""
    c, decay = numbers
    largest = x.amax((1, 2, 3), keepdim=True)
    return (x + c * plasma(draws, x.shape[-1], decay)[:, None]) * largest / (largest + c)


def brightness(x: Tensor, draws: Draws, numbers: Numbers) -> Tensor:
    """The value of HSV raised by c, hue and saturation kept: all channels grow by one factor."""
    (c,) = numbers
    value = x.amax(1, keepdim=True)
    raised = (value + c).clamp(max=1)
    return torch.where(value > 0, x * (raised / value.clamp(min=1 / 255)), raised)


TABLE = {
    "snow": Kind(  # mean, deviation, zoom, threshold, radius, sigma, share of the image
        snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": Kind(  # of the image, of the frost
        frost,
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    ),
    "fog": Kind(  # strength, decay
        fog,
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "brightness": Kind(brightness, single(0.05, 0.1, 0.15, 0.2, 0.3), single(0.1, 0.2, 0.3, 0.4, 0.5)),
    "spatter": Kind(  # mean, deviation, sigma, threshold, strength of water or sigma of mud, 0 water or 1 mud
        spatter,
        (
            (0.62, 0.1, 0.7, 0.7, 0.5, 0),
            (0.65, 0.1, 0.8, 0.7, 0.5, 0),
            (0.65, 0.3, 1, 0.69, 0.5, 0),
            (0.65, 0.1, 0.7, 0.69, 0.6, 1),
            (0.65, 0.1, 0.5, 0.68, 0.6, 1),
        ),
        (
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ),
    ),
}

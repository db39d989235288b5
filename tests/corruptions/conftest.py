"""Images with edges, gradients and texture, and a stand-in for random numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from compressl.corruptions import blur, digital, noise, weather
from compressl.corruptions.kind import Draws, Kind, Numbers

TABLE: dict[str, Kind] = {**noise.TABLE, **blur.TABLE, **weather.TABLE, **digital.TABLE}


@pytest.fixture
def scenes() -> Callable[[int, int], Tensor]:
    """Natural-like images [N, 3, S, S]: structure of all scales, coarse ones the strongest, and a sharp edge."""

    def make(count: int, size: int) -> Tensor:
        generator = torch.Generator().manual_seed(size)
        out = torch.full((count, 3, size, size), 0.45)
        for cells, strength in ((3, 0.35), (6, 0.2), (12, 0.12), (size, 0.03)):
            layer = torch.randn(count, 3, cells, cells, generator=generator) * strength
            out += F.interpolate(layer, size=(size, size), mode="bicubic")
        out[:, :, size // 3 : size // 2, size // 4 : size // 2] *= 0.4
        return (out.clamp(0, 1) * 255).round() / 255

    return make


@pytest.fixture
def draws() -> Callable[..., Draws]:
    """Random numbers of a kind; two of the same are equal, so that a test can draw what the corruption drew."""
    return lambda kind, severity, count=1, seed=0: Draws(kind, severity, torch.arange(count), seed)


@pytest.fixture
def apply() -> Callable[[str, Tensor, Draws, Numbers], Tensor]:
    """A corruption before its result is cut to levels, with numbers of one's own, in float64."""
    return lambda kind, images, drawn, numbers: TABLE[kind].apply(images.double(), drawn, numbers)

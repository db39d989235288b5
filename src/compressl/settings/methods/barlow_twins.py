"""Barlow Twins in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from compressl.settings.methods.base import MethodSettings


@dataclass(frozen=True)
class BarlowTwinsSettings(MethodSettings):
    """Barlow Twins (Zbontar et al. 2021): dimensions that agree between views and repeat nothing of one another."""

    compares_images: ClassVar[bool] = True
    # LARS as in the paper, whose 0.2 per 256 images peaks at 1.6 in its batch of 2048; this one peaks at 1 in ours
    optimizer: ClassVar[dict[str, str | float]] = {"name": "lars", "lr": 1.0, "weight_decay": 1e-6}
    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = "barlow-twins"
    hidden: int = 2048
    """Width of the projection's two hidden layers (the paper: 8192)."""
    dim: int = 2048
    """Dimension d of the projection (the paper: 8192; it gains from more dimensions than the feature has)."""
    off_diagonal: float = 0.0051
    """Weight lambda of the redundancy (the paper: 0.005; the official code: 0.0051)."""
    scale: float = 0.024
    """Factor on the loss, which is a sum over dimensions. LARS heeds it in norms and biases alone: with 0.024
    they train at the paper's rate for them (0.0048 where weights have 0.2). SGD heeds it everywhere."""

    def check(self) -> list[str]:
        return super().check() + self._at_least(2, "dim") + self._positive("off_diagonal", "scale")

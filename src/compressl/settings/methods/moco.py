"""MoCo v3 in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from compressl.settings.methods.base import MethodSettings


@dataclass(frozen=True)
class MoCoSettings(MethodSettings):
    """MoCo v3 (Chen, Xie and He 2021): tell a slow copy's embedding of the other view from those of other images."""

    compares_images: ClassVar[bool] = True
    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = "moco-v3"
    dim: int = 256
    """Dimension d of queries and keys (the paper: 256)."""
    layers: int = 2
    """Linear layers of the projection (the paper: 2 for ResNet, 3 for ViT)."""
    predictor_norm: bool = False
    """Batch norm, without scale and shift, on the predictor's output (the official code: no for ResNet, yes for ViT);
    the projection's output always has one."""
    # the loss is the mean of both directions, half of the official one: a published learning rate for SGD counts double
    temperature: float = 0.2
    """Softmax temperature tau (the paper: 0.2 for ViT; the official code: 1 for ResNet-50)."""
    ema: float = 0.99
    """Momentum m of the slow copy at the start; it rises to 1 along a cosine (the paper: 0.99; the official code: 0.996
    for 1000 epochs)."""

    def check(self) -> list[str]:
        problems = (
            super().check() + self._at_least(2, "dim") + self._at_least(1, "layers") + self._positive("temperature")
        )
        return problems + self._between("ema")

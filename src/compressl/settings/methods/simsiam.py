"""SimSiam in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from compressl.settings.methods.base import MethodSettings


@dataclass(frozen=True)
class SimSiamSettings(MethodSettings):
    """SimSiam (Chen and He 2021): predict the other view, which is held still; no negatives, no slow copy."""

    # with the 0.06 of the contrastive methods, trainings of some hundred steps hardly began (ours)
    optimizer: ClassVar[dict[str, str | float]] = {"lr": 0.25}
    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = "simsiam"
    hidden: int = 2048
    """Width of the projection's hidden layers (the paper: 2048)."""
    dim: int = 2048
    """Dimension d of the projection and of the prediction (the paper: 2048)."""
    bottleneck: int = 512
    """Width of the predictor's hidden layer (the paper: 512, a quarter of d)."""
    layers: int = 2
    """Linear layers of the projection (the paper: 2 on CIFAR-10, 3 on ImageNet); hidden is not used with 1."""
    stop_gradient: bool = True
    """Hold the other view still. Without it the embeddings collapse, as the paper shows; nothing is learnt."""

    def check(self) -> list[str]:
        return super().check() + self._at_least(2, "dim", "bottleneck") + self._at_least(1, "layers")

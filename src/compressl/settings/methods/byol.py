"""BYOL in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from compressl.settings.methods.base import MethodSettings


@dataclass(frozen=True)
class BYOLSettings(MethodSettings):
    """BYOL (Grill et al. 2020): predict the embedding of a slow copy."""

    # with the 0.06 of the contrastive methods, trainings of some hundred steps hardly began (ours)
    optimizer: ClassVar[dict[str, str | float]] = {"lr": 0.25}
    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = "byol"
    dim: int = 128
    """Dimension d of the embedding that the objective sees (the paper: 256)."""
    weight: float = 1.0
    """Weight w_d of the regression term (BYOL: 1; the compressive paper's baseline: 5 at 300 epochs, 2 at 1000)."""
    ema: float = 0.99
    """Momentum alpha_0 of the slow copy at the start; it rises to 1 along a cosine."""

    def check(self) -> list[str]:
        problems = super().check() + self._at_least(2, "dim") + self._positive("weight")
        return problems + self._between("ema")

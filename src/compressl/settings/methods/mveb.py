"""MVEB in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from compressl.settings.methods.base import MethodSettings


@dataclass(frozen=True)
class MVEBSettings(MethodSettings):
    """MVEB (Wen et al. 2024): views that agree, and embeddings of high entropy by an estimate of their score."""

    compares_images: ClassVar[bool] = True
    multi_crop: ClassVar[bool] = True
    # ours: of unit rows and small weights, the gradient is small (the paper: LARS at 0.3 per 256 images)
    optimizer: ClassVar[dict[str, str | float]] = {"lr": 1.0}
    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = "mveb"
    hidden: int = 2048
    """Width of the two hidden layers of the projector (as in the paper)."""
    dim: int = 256
    """Dimension d of the embedding (the paper: 2048)."""
    entropy_weight: float = 0.03
    """Weight lambda = 1 / ((1 + beta) kappa) of the entropy: the smaller, the more compression (the paper: 0.01 for 800
    epochs; ours: short trainings spread sooner)."""
    ridge: float = 0.01
    """Ridge eta of the score estimate (as in the paper)."""
    min_bandwidth: float = 0.1
    """Smallest bandwidth tau of its kernel; the median distance where that is larger (as in the paper)."""
    group_size: int = 128
    """Images of one score estimate (the paper: 128, its batch on one device). It must divide batch_size. The strength
    of the entropy grows with it: change entropy_weight too."""
    estimator: Literal["released", "sphere"] = "released"
    """released: the gradient of the kernel as the paper's code takes it. sphere: ours, with the sphere's curvature;
    differs in few dimensions."""
    target: Literal["ema", "siamese"] = "ema"
    """ema: views agree with a slow copy of the network (the paper's code). siamese: with one another, which spares the
    slow copy's two passes."""
    ema: float = 0.99
    """Momentum alpha_0 of the slow copy at the start (the paper: 0.996, for 250 000 steps); it rises to 1 along a
    cosine. Not used with target = siamese."""

    def check_batch(self, batch_size: int) -> list[str]:
        if self.group_size < 2 or batch_size % self.group_size == 0:
            return []
        fits = next((n for n in range(min(self.group_size, batch_size), 1, -1) if batch_size % n == 0), batch_size)
        return [
            f"method.group_size must divide batch_size ({batch_size}), as each group makes one estimate; it is "
            f"{self.group_size}. {fits} does."
        ]

    def check(self) -> list[str]:
        problems = (
            super().check()
            + self._at_least(2, "dim", "group_size")
            + self._not_negative("entropy_weight")
            + self._positive("ridge", "min_bandwidth")
        )
        return problems + self._between("ema")

"""VICReg in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from compressl.settings.methods.base import MethodSettings


@dataclass(frozen=True)
class VICRegSettings(MethodSettings):
    """VICReg (Bardes et al. 2022): views agree, dimensions vary and do not covary."""

    compares_images: ClassVar[bool] = True
    # LARS as in the paper, whose 0.2 per 256 images peaks at 1.6 in its batch of 2048; this one peaks at 1 in ours
    optimizer: ClassVar[dict[str, str | float]] = {"name": "lars", "lr": 1.0, "weight_decay": 1e-6}
    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = "vicreg"
    hidden: int = 2048
    """Width of the expander's two hidden layers (the paper: 8192)."""
    dim: int = 2048
    """Dimension d of the expander's output (the paper: 8192)."""
    invariance: float = 25.0
    """Weight lambda of the distance between the views."""
    variance: float = 25.0
    """Weight mu of the hinge on the standard deviations, averaged over the views as in the official code (the paper:
    summed)."""
    covariance: float = 1.0
    """Weight nu of the covariances."""
    epsilon: float = 1e-4
    """Added to each variance under its root."""

    def check(self) -> list[str]:
        problems = (
            super().check()
            + self._at_least(2, "dim")
            + self._not_negative("invariance", "variance", "covariance")
            + self._positive("epsilon")
        )
        if self.variance == 0 and self.covariance == 0:
            problems.append("method.variance and method.covariance are both 0: nothing would prevent a collapse.")
        return problems

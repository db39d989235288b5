"""C-SimCLR in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from compressl.settings.methods.base import BottleneckSettings


@dataclass(frozen=True)
class CSimCLRSettings(BottleneckSettings):
    """C-SimCLR (Lee et al. 2021): SimCLR with a von Mises-Fisher bottleneck."""

    compares_images: ClassVar[bool] = True
    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = "c-simclr"
    kappa_b: float = 10.0
    """Concentration of the backward encoder b(z|y); 1 / temperature of the contrastive term."""
    dim: int = 128
    """Dimension d of the embedding that the objective sees (the paper: 256)."""
    sample: bool = True
    """Draw z ~ e(z|x); otherwise z is the mean direction."""
    analytic: bool = False
    """Residual information in closed form instead of from the sample."""

    def check(self) -> list[str]:
        problems = super().check() + self._at_least(2, "dim")
        if self.analytic and not self.sample:
            problems.append(
                "method.analytic averages over samples that method.sample = false never draws: set one only."
            )
        return problems

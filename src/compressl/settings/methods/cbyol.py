"""C-BYOL in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from compressl.settings.methods.byol import BYOLSettings


@dataclass(frozen=True)
class CBYOLSettings(BYOLSettings):
    """C-BYOL (Lee et al. 2021): BYOL with a stochastic predictor and a von Mises-Fisher bottleneck."""

    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = "c-byol"
    weight: float = 5.0
    """Weight w_d = kappa_d / 2 of the regression term (5 at 300 epochs, 2 at 1000)."""
    kappa_e: float = 16384.0
    """Concentration of the forward encoder e(z|x)."""
    kappa_b: float = 10.0
    """Concentration of the backward encoder b(z|y)."""
    beta: float = 1.0
    """Weight of the residual information I(X;Z|Y): how hard to compress."""
    beta_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """linear: beta rises from 0 over beta_warmup; cosine: over the whole training."""
    beta_warmup: float = 0.1
    """Share of the training over which a linear schedule rises (the official code: 10 epochs)."""
    target_residual_bits: Annotated[float | None, tyro.conf.arg(name="target-residual-bits", prefix_name=False)] = None
    """Hold the residual information above its floor at this many bits by adapting beta, which starts at 0.01; beta and
    its schedule are then not used. Ours: the paper searches beta. Default: off."""

    def check(self) -> list[str]:
        problems = (
            super().check()
            + self._positive("kappa_e", "kappa_b")
            + self._not_negative("beta")
            + self._share("beta_warmup")
        )
        if self.target_residual_bits is not None:
            problems += self._positive("target_residual_bits")
        return problems

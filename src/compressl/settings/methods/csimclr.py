"""C-SimCLR in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from compressl.settings.methods.base import MethodSettings


@dataclass(frozen=True)
class CSimCLRSettings(MethodSettings):
    """C-SimCLR (Lee et al. 2021): SimCLR with a von Mises-Fisher bottleneck."""

    compares_images: ClassVar[bool] = True
    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = "c-simclr"
    dim: int = 128
    """Dimension d of the embedding that the objective sees (the paper: 256)."""
    kappa_e: float = 1024.0
    """Concentration of the forward encoder e(z|x): how little noise z carries."""
    kappa_b: float = 10.0
    """Concentration of the backward encoder b(z|y); 1 / temperature of the contrastive term."""
    beta: float = 1.0
    """Weight of the residual information I(X;Z|Y): how hard to compress."""
    beta_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """linear: beta rises from 0 over beta_warmup; cosine: over the whole training."""
    beta_warmup: float = 0.1
    """Share of the training over which a linear schedule rises (the official code: 10 epochs)."""
    target_residual_bits: Annotated[float | None, tyro.conf.arg(name="target-residual-bits", prefix_name=False)] = None
    """Hold the residual information above its floor at this many bits by adapting beta, which starts at 0.01; beta and
    its schedule are then not used. Ours: the paper searches beta. Default: off."""
    sample: bool = True
    """Draw z ~ e(z|x); otherwise z is the mean direction."""
    analytic: bool = False
    """Residual information in closed form instead of from the sample."""

    def check(self) -> list[str]:
        problems = (
            super().check()
            + self._at_least(2, "dim")
            + self._positive("kappa_e", "kappa_b")
            + self._not_negative("beta")
            + self._share("beta_warmup")
        )
        if self.target_residual_bits is not None:
            problems += self._positive("target_residual_bits")
        if self.analytic and not self.sample:
            problems.append(
                "method.analytic averages over samples that method.sample = false never draws: set one only."
            )
        return problems

"""The numbers of each method, named after its paper's symbols.

They live beside the methods' code rather than in it because a method's file needs torch and these must not
(``docs/architecture.md``, "settings").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import tyro


@dataclass(frozen=True)
class MethodSettings:
    """What every method has: a projection head on the encoder's pooled feature."""

    compares_images: ClassVar[bool] = False  # whether the loss of an image depends on the other images of its batch
    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = ""
    """Which method; `compressl list` describes them."""
    hidden: int = 2048
    """Width of the hidden layer of every head (the paper: 4096; ours: enough for a batch of 256)."""
    dim: int = 128
    """Dimension d of the embedding that the objective sees (the paper: 256)."""

    def check(self) -> list[str]:
        return [
            f"method.{n} must be at least 2; it is {getattr(self, n)}."
            for n in ("hidden", "dim")
            if getattr(self, n) < 2
        ]

    def _share(self, *names: str) -> list[str]:
        return [
            f"method.{n} lies above 0 and at most at 1; it is {getattr(self, n)}."
            for n in names
            if not 0 < getattr(self, n) <= 1
        ]

    def _positive(self, *names: str) -> list[str]:
        return [
            f"method.{n} must be greater than 0; it is {getattr(self, n)}." for n in names if not getattr(self, n) > 0
        ]

    def _not_negative(self, *names: str) -> list[str]:
        return [
            f"method.{n} must not be negative; it is {getattr(self, n)}." for n in names if not getattr(self, n) >= 0
        ]


@dataclass(frozen=True)
class SimCLRSettings(MethodSettings):
    """SimCLR (Chen et al. 2020), with the head and negatives of the compressive paper's baseline."""

    compares_images: ClassVar[bool] = True
    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = "simclr"
    temperature: float = 0.1
    """Softmax temperature tau."""

    def check(self) -> list[str]:
        return super().check() + self._positive("temperature")


@dataclass(frozen=True)
class CSimCLRSettings(MethodSettings):
    """C-SimCLR (Lee et al. 2021): SimCLR with a von Mises-Fisher bottleneck."""

    compares_images: ClassVar[bool] = True
    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = "c-simclr"
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
    sample: bool = True
    """Draw z ~ e(z|x); otherwise z is the mean direction."""
    analytic: bool = False
    """Residual information in closed form instead of from the sample."""

    def check(self) -> list[str]:
        problems = (
            super().check()
            + self._positive("kappa_e", "kappa_b")
            + self._not_negative("beta")
            + self._share("beta_warmup")
        )
        if self.analytic and not self.sample:
            problems.append(
                "method.analytic averages over samples that method.sample = false never draws: set one only."
            )
        return problems


@dataclass(frozen=True)
class BYOLSettings(MethodSettings):
    """BYOL (Grill et al. 2020): predict the embedding of a slow copy."""

    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = "byol"
    weight: float = 1.0
    """Weight w_d of the regression term (BYOL: 1; the compressive paper's baseline: 5 at 300 epochs, 2 at 1000)."""
    ema: float = 0.99
    """Momentum alpha_0 of the slow copy at the start; it rises to 1 along a cosine."""

    def check(self) -> list[str]:
        problems = super().check() + self._positive("weight")
        if not 0 <= self.ema <= 1:
            problems.append(f"method.ema lies between 0 and 1; it is {self.ema}.")
        return problems


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

    def check(self) -> list[str]:
        return (
            super().check()
            + self._positive("kappa_e", "kappa_b")
            + self._not_negative("beta")
            + self._share("beta_warmup")
        )


METHODS: dict[str, type[MethodSettings]] = {
    settings().name: settings for settings in (SimCLRSettings, CSimCLRSettings, BYOLSettings, CBYOLSettings)
}


def describe(settings: type[Any]) -> str:
    """The first line of a settings class's docstring."""
    return (settings.__doc__ or "").strip().splitlines()[0]

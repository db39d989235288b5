"""What the settings of every method share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro


@dataclass(frozen=True)
class MethodSettings:
    """What every method has: a projection head on the encoder's pooled feature."""

    compares_images: ClassVar[bool] = False  # whether the loss of an image depends on the other images of its batch
    multi_crop: ClassVar[bool] = False  # whether small crops beside the two views (--views.local) are put to use
    optimizer: ClassVar[dict[str, str | float]] = {}  # what of [optimizer] suits this method better than its defaults
    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = ""
    """Which method; `compressl list` describes them."""
    hidden: int = 2048
    """Width of the hidden layer of every head (the paper: 4096; ours: enough for a batch of 256)."""

    def check(self) -> list[str]:
        return self._at_least(2, "hidden")

    def check_batch(self, batch_size: int) -> list[str]:
        """What cannot work about these settings with batches of this size, a sentence each."""
        return []

    def _at_least(self, least: int, *names: str) -> list[str]:
        return [
            f"method.{n} must be at least {least}; it is {getattr(self, n)}." for n in names if getattr(self, n) < least
        ]

    def _share(self, *names: str) -> list[str]:
        return [
            f"method.{n} lies above 0 and at most at 1; it is {getattr(self, n)}."
            for n in names
            if not 0 < getattr(self, n) <= 1
        ]

    def _between(self, *names: str) -> list[str]:
        return [
            f"method.{n} lies between 0 and 1; it is {getattr(self, n)}."
            for n in names
            if not 0 <= getattr(self, n) <= 1
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
class BottleneckSettings(MethodSettings):
    """What the methods with a von Mises-Fisher bottleneck share: its noise, and the price of what it lets through."""

    kappa_e: float = 1024.0
    """Concentration of the forward encoder e(z|x): how little noise z carries."""
    kappa_b: float = 10.0
    """Concentration of the backward encoder b(z|y)."""
    beta: float = 1.0
    """Weight of the residual information I(X;Z|Y): how hard to compress."""
    beta_schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """linear: beta rises from 0 over beta_warmup; cosine: over the whole training (the paper: constant; ours: cosine,
    the best of three in short trainings, which a constant beta of 1 stalls)."""
    beta_warmup: float = 0.1
    """Share of the training over which a linear schedule rises (the official code: 10 epochs)."""
    target_residual_bits: Annotated[float | None, tyro.conf.arg(name="target-residual-bits", prefix_name=False)] = None
    """Hold the residual information above its floor at this many bits by adapting beta, which starts at 0.01; beta and
    its schedule are then not used. Ours: the paper searches beta. Default: off."""

    def check(self) -> list[str]:
        problems = super().check() + self._positive("kappa_e", "kappa_b")
        problems += self._not_negative("beta") + self._share("beta_warmup")
        return problems + (self._positive("target_residual_bits") if self.target_residual_bits is not None else [])

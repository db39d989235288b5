"""C-BYOL in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from compressl.settings.methods.base import BottleneckSettings
from compressl.settings.methods.byol import BYOLSettings


@dataclass(frozen=True)
class CBYOLSettings(BottleneckSettings, BYOLSettings):
    """C-BYOL (Lee et al. 2021): BYOL with a stochastic predictor and a von Mises-Fisher bottleneck."""

    # without the clip its mean directions begin in a narrow cone (ours)
    optimizer: ClassVar[dict[str, str | float]] = {"lr": 0.25, "clip": 0.5}
    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = "c-byol"
    weight: float = 5.0
    """Weight w_d = kappa_d / 2 of the regression term (5 at 300 epochs, 2 at 1000)."""
    kappa_e: float = 16384.0
    """Concentration of the forward encoder e(z|x)."""

"""CISSL in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from compressl.settings.methods.base import MethodSettings


@dataclass(frozen=True)
class CISSLSettings(MethodSettings):
    """CISSL (Dubois et al. 2022): contrast of an MLP head and the head that a downstream probe will be."""

    compares_images: ClassVar[bool] = True
    # the paper on TinyImageNet: Adam with these numbers
    optimizer: ClassVar[dict[str, str | float]] = {"name": "adamw", "lr": 2e-3, "weight_decay": 1e-6}
    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = "cissl"
    hidden: int = 1024
    """Width of the hidden layers (the paper: 1024 on TinyImageNet; 2048 on ImageNet and for MLP probes)."""
    hidden_layers: int = 1
    """Hidden layers of the MLP (the paper: 1 on TinyImageNet; 2 on ImageNet and for MLP probes)."""
    dim: int = 128
    """Dimension k of the embeddings that are compared (the paper: 128)."""
    probe: Literal["linear", "mlp"] = "linear"
    """What will be fitted to the features downstream: the student head is of that kind, the teacher always an MLP."""
    temperature: float = 0.07
    """Softmax temperature tau (the paper: 0.07 on TinyImageNet, 0.1 on ImageNet)."""

    def check(self) -> list[str]:
        return (
            super().check()
            + self._at_least(2, "dim")
            + self._at_least(1, "hidden_layers")
            + self._positive("temperature")
        )

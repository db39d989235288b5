"""SimCLR in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from compressl.settings.methods.base import MethodSettings


@dataclass(frozen=True)
class SimCLRSettings(MethodSettings):
    """SimCLR (Chen et al. 2020), with the head and negatives of the compressive paper's baseline."""

    compares_images: ClassVar[bool] = True
    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = "simclr"
    dim: int = 128
    """Dimension d of the embedding that the objective sees (the paper: 256)."""
    temperature: float = 0.1
    """Softmax temperature tau."""

    def check(self) -> list[str]:
        return super().check() + self._at_least(2, "dim") + self._positive("temperature")

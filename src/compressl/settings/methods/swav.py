"""SwAV in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from compressl.settings.methods.base import MethodSettings


@dataclass(frozen=True)
class SwAVSettings(MethodSettings):
    """SwAV (Caron et al. 2020): predict which prototypes another crop is assigned to; takes small crops."""

    compares_images: ClassVar[bool] = True
    multi_crop: ClassVar[bool] = True
    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = "swav"
    hidden: int = 2048
    """Width of the hidden layer of the head (the official code: 2048)."""
    dim: int = 128
    """Dimension d of the embedding that is compared with the prototypes."""
    prototypes: int = 512
    """Number K of prototypes (the paper: 3000; ours: for images of few kinds and batches of 256)."""
    temperature: float = 0.1
    """Softmax temperature tau of the prediction."""
    epsilon: float = 0.02
    """Evenness of the assignment; too large, and all images are assigned alike (the paper: 0.05; the official code
    advises 0.03 where the loss stays at log K; ours: at 0.05 it stayed there for the 350 steps that were tried)."""
    iterations: int = 3
    """Sinkhorn-Knopp iterations of the assignment."""
    queue: int = 0
    """Embeddings of earlier images, per view and over all processes, that take part in the assignment; for batches much
    smaller than the number of prototypes (the official code: 3840 at batch 256, none at 4096)."""
    queue_start: float = 0.075
    """Share of the training after which the queue is filled, and once full, used (the official code: from epoch 15, of
    200 or 400)."""
    freeze: float = 0.01
    """Share of the training over which the prototypes stay as they are (the official code: the first epoch)."""

    def check(self) -> list[str]:
        problems = (
            super().check()
            + self._at_least(2, "dim", "prototypes")
            + self._at_least(1, "iterations")
            + self._positive("temperature", "epsilon")
            + self._not_negative("queue")
        )
        return problems + [
            f"method.{n} lies at or above 0 and below 1; it is {getattr(self, n)}."
            for n in ("queue_start", "freeze")
            if not 0 <= getattr(self, n) < 1
        ]

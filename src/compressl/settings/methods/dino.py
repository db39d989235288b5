"""DINO in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from compressl.settings.methods.base import MethodSettings


@dataclass(frozen=True)
class DINOSettings(MethodSettings):
    """DINO (Caron et al. 2021): predict the centred, sharpened output of a slow copy; takes small crops."""

    # The loss of an image does not depend on the others, but the centre moves once a step, towards the mean of the
    # whole batch: a batch in several passes would move it between them, and take each pass for the batch.
    compares_images: ClassVar[bool] = True
    multi_crop: ClassVar[bool] = True
    # with the 0.06 of the contrastive methods, trainings of some hundred steps hardly began (ours)
    optimizer: ClassVar[dict[str, str | float]] = {"lr": 0.25}
    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = "dino"
    hidden: int = 2048
    """Width of the two hidden layers of the head (the official code: 2048)."""
    bottleneck: int = 256
    """Dimension of the unit vector before the last layer."""
    outputs: int = 2048
    """Number K of outputs (the paper: 65536; ours: for images of few kinds)."""
    batch_norm: bool = True
    """Batch norm in the head (the official code: an option, off by default, since its ViT encoders have none; ours: on,
    for encoders with batch norm)."""
    student_temperature: float = 0.1
    """Softmax temperature tau_s of the student."""
    teacher_temperature: float = 0.02
    """Softmax temperature tau_t of the teacher, after its warm-up (the official code: 0.04 by default, 0.07 for the
    best models; above that, unstable; ours: 0.02, as at the start)."""
    teacher_temperature_start: float = 0.02
    """Softmax temperature of the teacher at the start; the lower, the sharper (the official code: 0.04). In trainings
    of a thousand steps 0.04 left all outputs alike, 0.02 throughout did not (ours)."""
    teacher_warmup: float = 0.1
    """Share of the training over which the teacher's temperature rises linearly (the paper: 30 epochs, of 300)."""
    center_momentum: float = 0.0
    """Momentum m of the centre (the paper: 0.9; ours: 0, the mean of each batch, which short trainings follow)."""
    ema: float = 0.99
    """Momentum lambda of the teacher at the start; it rises to 1 along a cosine (the paper: 0.996; the official code
    advises more for small batches, 0.9995 at 256, for its long trainings; ours: 0.99, for shorter ones)."""
    freeze: float = 0.01
    """Share of the training over which the last layer stays as it is (the official code: the first epoch, of 100)."""

    def check(self) -> list[str]:
        problems = (
            super().check()
            + self._at_least(2, "bottleneck", "outputs")
            + self._positive("student_temperature", "teacher_temperature", "teacher_temperature_start")
            + self._share("teacher_warmup")
        )
        problems += self._between("center_momentum", "ema")
        if not 0 <= self.freeze < 1:
            problems.append(f"method.freeze lies at or above 0 and below 1; it is {self.freeze}.")
        return problems

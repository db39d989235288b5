"""DISSL in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from compressl.settings.methods.base import MethodSettings


@dataclass(frozen=True)
class DISSLSettings(MethodSettings):
    """DISSL (Dubois et al. 2022): distil balanced, invariant codes into the head that a downstream probe will be."""

    compares_images: ClassVar[bool] = True
    multi_crop: ClassVar[bool] = True
    # the paper on TinyImageNet: Adam with these numbers
    optimizer: ClassVar[dict[str, str | float]] = {"name": "adamw", "lr": 2e-3, "weight_decay": 1e-6}
    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = "dissl"
    hidden: int = 1024
    """Width of the hidden layers (the paper: 1024 on TinyImageNet; 2048 on ImageNet and for MLP probes)."""
    hidden_layers: int = 1
    """Hidden layers of an MLP head, before its bottleneck (the paper: 1; 2 for MLP probes). heads = imagenet has its
    own."""
    bottleneck: int = 512
    """Rank of the last, large layer of both heads (the paper: 512)."""
    clusters: int = 4096
    """Number C of clusters (the paper: 16384, fewer for stronger augmentations; ours: 16 per image of a batch of 256,
    where the paper's have 6 to 64). The entropy of a batch's codes is at most log C, and at most log of the batch size
    once they are certain: with far more clusters than images, each image of a batch has one to itself."""
    heads: Literal["tinyimagenet", "imagenet"] = "tinyimagenet"
    """The paper's heads for TinyImageNet; or those for ImageNet, whose teacher has a residual block (with hidden = 2048
    they have the published size)."""
    probe: Literal["linear", "mlp"] = "linear"
    """What will be fitted to the features downstream: the student head is of that kind, the teacher always an MLP."""
    entropy_weight: float = 2.3
    """Weight lambda of the entropy of the mean code, for balanced clusters: at least 1 + beta (the paper: 2.3, tuned in
    1.8 to 2.8)."""
    target_entropy_bits: Annotated[float | None, tyro.conf.arg(name="target-entropy-bits", prefix_name=False)] = None
    """Hold the entropy of the mean code at this many bits by adapting lambda, which starts at entropy_weight and never
    falls below 1 + beta; a batch can show log2 of its size at most. Ours: the paper searches lambda. Default: off."""
    invariance_weight: float = 0.8
    """Weight beta of the teacher's agreement with itself on the other view, and of its certainty (the paper: 0.8 on
    TinyImageNet, tuned in 0.4 to 1; 0.6 on ImageNet)."""
    invariance_warmup: float = 0.0
    """Share of the training over which beta falls from lambda to its value (the released code: 1000 iterations in runs
    of 800 epochs or with weak augmentation, otherwise none). Until beta has fallen, 1 + beta lies above lambda, as
    there."""
    teacher_temperature: float = 0.5
    """Softmax temperature tau_t of the codes (the paper: half of the student's)."""
    student_temperature: float = 1.0
    """Softmax temperature tau_s of the predictions."""

    def check_batch(self, batch_size: int) -> list[str]:
        most = math.log2(max(2, min(batch_size, self.clusters)))
        if self.target_entropy_bits is None or self.target_entropy_bits < most:
            return []
        return [
            f"target-entropy-bits is {self.target_entropy_bits:g}, but {batch_size} images and {self.clusters} "
            f"clusters can show {most:g} bits at most: give less, or a larger batch_size."
        ]

    def check(self) -> list[str]:
        problems = (
            super().check()
            + self._at_least(1, "hidden_layers", "bottleneck")
            + self._at_least(2, "clusters")
            + self._not_negative("entropy_weight", "invariance_weight")
            + self._positive("teacher_temperature", "student_temperature")
        )
        if self.target_entropy_bits is not None:
            problems += self._positive("target_entropy_bits")
        problems += self._between("invariance_warmup")
        if self.entropy_weight < (least := 1 + self.invariance_weight):
            problems.append(
                f"method.entropy_weight must be at least 1 + method.invariance_weight = {least:g}; "
                f"it is {self.entropy_weight:g}. With less, all images may drift into one cluster."
            )
        return problems

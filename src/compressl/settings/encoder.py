"""Which network becomes the encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from compressl.settings.spelling import suggestion

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
MAX_DIM = 65536


@dataclass(frozen=True)
class EncoderSettings:
    """The network whose pooled feature is the representation."""

    name: Annotated[str, tyro.conf.arg(name="encoder", prefix_name=False)] = "resnet18"
    """resnet18, 34, 50, 101, 152, or timm/<name> for any model of timm (needs the extra `timm`)."""
    width: float = 1.0
    """Factor on every channel count of a ResNet."""
    stem: Literal["auto", "small", "imagenet"] = "auto"
    """First layers of a ResNet. small: 3x3 convolution, no pooling; imagenet: 7x7 stride 2 and max-pooling.
    auto: small for views up to 64 px."""
    zero_init: bool = True
    """Start the residual branches of a ResNet at zero, as is usual for long trainings (Goyal et al. 2017). Without it a
    network has all of its layers from the first step: better for short trainings that lack negatives (measured)."""
    pretrained: bool = False
    """timm only: start from its published weights (downloads them)."""
    dim: int | None = None
    """Dimension of the representation; larger than the network's own: channels are tiled before the pooling, with a
    residual bottleneck (ISSL). Default: the network's own (512 for resnet18 and 34, 2048 for the others)."""

    def check(self) -> list[str]:
        problems = []
        if not self.name.startswith("timm/") and self.name not in RESNETS:
            known = (*RESNETS, "timm/<name>")
            problems.append(
                f"encoder {self.name!r} is unknown.{suggestion(self.name, known)} Known: {', '.join(known)}."
            )
        if not self.width > 0:
            problems.append(f"encoder.width must be greater than 0; it is {self.width}.")
        if self.dim is not None and self.name.startswith("timm/"):
            problems.append("encoder.dim is for our ResNets; a timm/<name> encoder keeps the dimension that it has.")
        elif self.dim is not None and not 1 <= self.dim <= MAX_DIM:
            problems.append(f"encoder.dim lies between 1 and {MAX_DIM}; it is {self.dim}.")
        if self.pretrained and not self.name.startswith("timm/"):
            problems.append("encoder.pretrained is for timm/<name> encoders; ours start from random weights.")
        return problems

    def small_stem(self, view_size: int) -> bool:
        """Whether the small stem is used for views of this side."""
        return self.stem == "small" or (self.stem == "auto" and view_size <= 64)

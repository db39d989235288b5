"""ResNet v1 (He et al. 2016, table 1) with the stride in the 3x3 convolution, as torchvision and timm build it.

The parameter names are theirs, so weights move both ways with a strict load. Three options are ours to need: every
channel count scales with ``width`` (SimCLR's "ResNet-50 2x"), images up to 64 px get a stem without early
downsampling (SimCLR, appendix B.9), and ``dim`` gives the representation more dimensions than the last stage has
channels (ISSL; its weights stand under ``wide.``, beside torchvision's names).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressl.models.wide import Wide


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: [N, C_in, H, W] -> [N, C, H / stride, W / stride]."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + shortcut)


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up, and a shortcut: [N, C_in, H, W] -> [N, 4 C, H / stride, W / stride]."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample = _shortcut(inputs, 4 * planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + shortcut)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


@dataclass(frozen=True)
class Depth:
    """Which block, and how many of it in each of the four stages."""

    block: type[BasicBlock] | type[Bottleneck]
    blocks: tuple[int, int, int, int]


DEPTHS = {
    "resnet18": Depth(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Depth(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Depth(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Depth(Bottleneck, (3, 4, 23, 3)),
    "resnet152": Depth(Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """A ResNet without classifier: images [N, 3, H, W] -> pooled features [N, ``num_features``].

    Args:
        depth: one of :data:`DEPTHS`.
        width: factor on every channel count; the result is rounded to a multiple of 8.
        small_stem: 3x3 convolution of stride 1 and no max-pooling, for images up to 64 px.
        zero_init: start each residual branch at zero by its last norm's scale (Goyal et al. 2017, section 5.1).
        dim: dimension of the features, by :class:`~compressl.models.wide.Wide` before the pooling; None: as many as
            the last stage has channels.

    >>> ResNet("resnet18", width=0.25, small_stem=True)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 128])
    """

    conv1: nn.Conv2d
    bn1: nn.BatchNorm2d

    def __init__(
        self,
        depth: str = "resnet18",
        *,
        width: float = 1.0,
        small_stem: bool = False,
        zero_init: bool = True,
        dim: int | None = None,
    ) -> None:
        super().__init__()
        block, blocks = DEPTHS[depth].block, DEPTHS[depth].blocks
        channels = [max(8, round(64 * 2**stage * width / 8) * 8) for stage in range(4)]
        self.small_stem = small_stem
        kernel, stride = (3, 1) if small_stem else (7, 2)
        self.conv1 = nn.Conv2d(3, channels[0], kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        inputs = channels[0]
        for stage, (planes, count) in enumerate(zip(channels, blocks, strict=True)):
            layers = []
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                layers.append(block(inputs, planes, stride))
                inputs = planes * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self._initialize(zero_init)
        self.num_features = inputs if dim is None else dim
        self.wide = None if dim is None else Wide(inputs, dim)

    def _initialize(self, zero_init: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if zero_init:
            for module in self.modules():
                if isinstance(module, BasicBlock):
                    nn.init.zeros_(module.bn2.weight)
                elif isinstance(module, Bottleneck):
                    nn.init.zeros_(module.bn3.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        if not self.small_stem:
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        for stage in range(1, 5):
            x = cast(Tensor, self.get_submodule(f"layer{stage}")(x))
        if self.wide is not None:
            x = self.wide(x)
        return torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)

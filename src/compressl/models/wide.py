"""More dimensions for a representation, at a small price: channels are tiled before the pooling and told apart."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from compressl.models.heads import fan_in_normal_

BOTTLENECK = 512


class Wide(nn.Module):
    """y = ReLU( tile(F) + branch(F) ): a feature map [N, c, H, W] -> [N, d, H, W], before the global pooling.

    tile repeats the block of all c channels d / c times, [F, F, ..., F]; the branch is 1x1 down to 512, 3x3, 1x1 up to
    d, without biases, with batch norms, as in a ResNet's bottleneck. Where d is no multiple of c the branch stands
    alone. A linear map after the pooling would add dimensions without letting a linear probe tell more classes apart.

    The parts are named ``conv1``, ``bn1``, ..., ``conv3``, ``bn3``, in an encoder ``wide.conv1`` and so on. The models
    of the paper's hub have theirs under ``resizer.``, which the hub renames to ``avgpool.0.`` (what they call the
    layers inside is unverified).

    Args:
        channels: c, of the last feature map.
        dim: d, of the representation.

    Source: Dubois et al. 2022, arXiv:2209.06235, and its released code, initialisation included: the first convolution
    is a random projection, normal with standard deviation 1 / sqrt(512), the others a truncated normal of variance
    1 / fan-in.

    >>> import torch
    >>> Wide(64, 256)(torch.zeros(2, 64, 4, 4)).shape
    torch.Size([2, 256, 4, 4])
    >>> sum(p.numel() for p in Wide(2048, 8192).parameters())
    7620608
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.copies = dim // channels if dim % channels == 0 else 0
        self.conv1 = nn.Conv2d(channels, BOTTLENECK, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(BOTTLENECK)
        self.conv2 = nn.Conv2d(BOTTLENECK, BOTTLENECK, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(BOTTLENECK)
        self.conv3 = nn.Conv2d(BOTTLENECK, dim, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(dim)
        nn.init.normal_(self.conv1.weight, std=1 / math.sqrt(BOTTLENECK))
        for conv in (self.conv2, self.conv3):
            fan_in_normal_(conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if self.copies:
            # each block of c channels plus F: the tiles are never written out
            y = (y.unflatten(1, (self.copies, -1)) + x.unsqueeze(1)).flatten(1, 2)
        return F.relu(y)

    def extra_repr(self) -> str:
        return f"copies={self.copies}"

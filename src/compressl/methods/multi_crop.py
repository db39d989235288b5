"""Crops of several sizes through one encoder, as the official codes of SwAV and DINO pass them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn


def encode(encoder: nn.Module, crops: Sequence[Tensor]) -> Tensor:
    """Features of all crops, a list of V batches [N, 3, H, W] -> [V N, F], in the order of the crops.

    Neighbours of one size pass together: the batch statistics of the encoder are over both views, then over all small
    crops. A head on top of the result sees all crops in one batch.

    >>> encode(nn.AdaptiveAvgPool2d(1), [torch.ones(4, 3, 8, 8), torch.ones(4, 3, 8, 8), torch.ones(4, 3, 6, 6)]).shape
    torch.Size([12, 3, 1, 1])
    """
    groups = [list(group) for _, group in groupby(crops, key=lambda crop: crop.shape[-2:])]
    return torch.cat([encoder(torch.cat(group)) for group in groups])

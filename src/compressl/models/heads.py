"""Heads between the encoder's feature and the objective."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn


def mlp(
    inputs: int,
    hidden: int,
    outputs: int,
    *,
    layers: int = 2,
    bias: bool = False,
    norm: Literal["none", "affine", "plain"] = "none",
) -> nn.Sequential:
    """Linear, batch norm, ReLU, ..., linear: [N, inputs] -> [N, outputs].

    The defaults are the head of Compressive Visual Representations (official code): two layers, no norm on the output,
    no biases, weights by fan-in variance scaling with a truncated normal.

    Args:
        layers: linear layers; all but the last are followed by batch norm and ReLU and have no bias.
        bias: whether the last layer has one.
        norm: batch norm after the last layer, with (``affine``) or without (``plain``) scale and shift.

    >>> sum(p.numel() for p in mlp(2048, 4096, 256).parameters())
    9445376
    >>> [type(layer).__name__ for layer in mlp(8, 16, 4, norm="plain")]
    ['Linear', 'BatchNorm1d', 'ReLU', 'Linear', 'BatchNorm1d']
    """
    modules: list[nn.Module] = []
    for _ in range(layers - 1):
        modules += [linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
        inputs = hidden
    modules.append(linear(inputs, outputs, bias=bias))
    if norm != "none":
        modules.append(nn.BatchNorm1d(outputs, affine=norm == "affine"))
    return nn.Sequential(*modules)


def linear(inputs: int, outputs: int, *, bias: bool = False) -> nn.Linear:
    """A linear layer, truncated normal with variance 1 / fan-in; a bias starts at zero."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    if bias:
        nn.init.zeros_(layer.bias)
    fan_in_normal_(layer.weight)
    return layer


def fan_in_normal_(weight: Tensor) -> None:
    """Truncated normal with variance 1 / fan-in, in place: weights [outputs, inputs, ...]."""
    # 0.8796: the standard deviation of a unit normal cut off at two
    std = 1 / math.sqrt(weight[0].numel()) / 0.87962566103423978
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def truncated_normal(head: nn.Module, std: float = 0.02) -> nn.Module:
    """The same head with the weights of its linear layers drawn anew, without regard to the fan-in; biases at zero.

    The initialisation of DINO's and ISSL's released code. PyTorch cuts off at -2 and 2, which is no cut at this std.

    >>> truncated_normal(mlp(256, 256, 256))[0].weight.std() < 0.021
    tensor(True)
    """
    for layer in head.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return head

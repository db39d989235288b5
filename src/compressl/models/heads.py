"""Heads between the encoder's feature and the objective."""

from __future__ import annotations

import math

from torch import nn


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, batch norm, ReLU, linear, without biases: [N, inputs] -> [N, outputs].

    The head of Compressive Visual Representations (official code): no norm on the output, weights by fan-in variance
    scaling with a truncated normal.

    >>> sum(p.numel() for p in mlp(2048, 4096, 256).parameters())
    9445376
    """
    return nn.Sequential(linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), linear(hidden, outputs))


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A bias-free linear layer, truncated normal with variance 1 / fan-in."""
    layer = nn.Linear(inputs, outputs, bias=False)
    # 0.8796: the standard deviation of a unit normal cut off at two
    std = 1 / math.sqrt(inputs) / 0.87962566103423978
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    return layer

"""The slow copy of a network: an exponential moving average of its weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn


def slow_copy(module: nn.Module) -> nn.Module:
    """A copy that no gradient reaches. It starts equal to its model (the official code starts it at random and found
    no difference)."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def update(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """theta' <- alpha theta' + (1 - alpha) theta for the weights; running statistics stay the slow copy's own."""
    torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), 1 - momentum)


def momentum_at(progress: float, start: float) -> float:
    """alpha_t = 1 - (1 - alpha_0) (1 + cos(pi t / T)) / 2: from ``start`` to 1 (Grill et al. 2020, section 3.2).

    >>> momentum_at(0.0, 0.99), momentum_at(0.5, 0.99), momentum_at(1.0, 0.99)
    (0.99, 0.995, 1.0)
    """
    return 1 - (1 - start) * (1 + math.cos(math.pi * progress)) / 2

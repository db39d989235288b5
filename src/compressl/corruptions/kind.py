"""What a kind of corruption is, and the random numbers that it draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from compressl.randomness import key, uniforms

Numbers = tuple[float, ...]
_HALF_STEP = 2.0**-25  # uniforms are multiples of 2^-24 from 0; moved by half a step they are symmetric about 1/2


class Draws:
    """Random numbers of each image of a batch, a function of (seed, kind, severity, key of the image) alone.

    Each call gives new numbers; the n-th call gives an image the same numbers in any batch. float64.

    >>> a = Draws("snow", 1, torch.tensor([7, 8]), seed=0).uniform(2, 3)
    >>> b = Draws("snow", 1, torch.tensor([8]), seed=0).uniform(2, 3)
    >>> a.shape, torch.equal(a[1:], b)
    (torch.Size([2, 2, 3]), True)
    """

    def __init__(self, kind: str, severity: int, keys: Tensor, seed: int) -> None:
        self._purpose = f"corruption {kind}"
        self._parts = (seed, severity)
        self._keys = keys
        self._calls = 0

    def uniform(self, *shape: int) -> Tensor:
        """Uniforms in (0, 1), [B, *shape]."""
        stream = key(self._purpose, *self._parts, self._calls)
        self._calls += 1
        return (uniforms(stream, self._keys, math.prod(shape)).double() + _HALF_STEP).view(-1, *shape)

    def normal(self, *shape: int) -> Tensor:
        """Standard normals [B, *shape], by the inverse of their distribution function; at most 5.4 in size."""
        normal: Tensor = torch.special.ndtri(self.uniform(*shape))
        return normal


@dataclass(frozen=True)
class Kind:
    """A corruption and its numbers at severities 1 to 5."""

    apply: Callable[[Tensor, Draws, Numbers], Tensor]
    """Images float64 [B, 3, S, S] in [0, 1], of 256 levels, to images of the same shape; what leaves [0, 1] is cut."""
    small: tuple[Numbers, ...]
    """Of CIFAR-10-C, for images up to 64 pixels wide."""
    large: tuple[Numbers, ...]
    """Of ImageNet-C, for larger ones."""


def single(*values: float) -> tuple[Numbers, ...]:
    """The table of a kind with one number.

    >>> single(1, 2)
    ((1,), (2,))
    """
    return tuple((value,) for value in values)

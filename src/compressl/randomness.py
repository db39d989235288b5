"""Randomness as a pure function of what it is for.

Nothing here has state. The order of an epoch, the augmentation of an image and the noise of a step are each computed
from a *key* (a purpose and some integers), so a resumed run needs no saved generator, and an image is augmented alike
alone, in any batch, on any number of processes.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # splitmix64's increment and multipliers, as signed 64-bit integers
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MULTIPLIER_2 = 0x94D049BB133111EB - (1 << 64)


def key(purpose: str, *parts: int) -> int:
    """A 63-bit key for a purpose and the integers that identify one use of it.

    >>> key("order", 0, 1) == key("order", 0, 1), key("order", 0, 1) == key("order", 1, 0)
    (True, False)
    """
    text = ":".join([purpose, *(str(int(part)) for part in parts)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(purpose: str, *parts: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh :class:`torch.Generator` seeded by :func:`key`.

    >>> a, b = (torch.rand(2, generator=generator("noise", 0, 7)) for _ in range(2))
    >>> torch.equal(a, b)
    True
    """
    return torch.Generator(device=device).manual_seed(key(purpose, *parts))


def permutation(length: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch: a permutation of ``length`` images, int64 [length].

    >>> sorted(permutation(4, seed=0, epoch=3).tolist())
    [0, 1, 2, 3]
    """
    return torch.randperm(length, generator=generator("order", seed, epoch))


def uniforms(stream: int, counters: Tensor, count: int) -> Tensor:
    """``count`` independent uniforms in [0, 1) for each counter, float32 [N, count], on the counters' device.

    ``stream`` is a :func:`key`; ``counters`` is int64 [N] (image indices, say). A row depends on its counter alone
    (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators": the splitmix64 finaliser).

    >>> many = uniforms(key("views", 0), torch.arange(100), 3)
    >>> torch.equal(many[41:42], uniforms(key("views", 0), torch.tensor([41]), 3))
    True
    """
    state = _mix(_mix(counters.to(torch.int64) * _GOLDEN) ^ stream)
    lanes = torch.arange(1, count + 1, device=counters.device) * _GOLDEN
    bits = _mix(state[:, None] + lanes[None, :])
    return _shift_right(bits, 40).to(torch.float32) * 2.0**-24


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _MULTIPLIER_1
    x = (x ^ _shift_right(x, 27)) * _MULTIPLIER_2
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's ``>>`` on int64 copies the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)

"""What the objectives share: unit rows, full precision, averages of terms, and refusals that say what to do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from compressl.errors import UsageError

Pair = tuple[Tensor, Tensor]  # view 1, view 2
Terms = dict[str, Tensor]  # detached scalars


def unit(x: Tensor) -> Tensor:
    """n(h) = h / ||h|| for each row, [..., D]; a row shorter than 1e-6 shrinks towards 0 instead of exploding.

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return x * x.square().sum(-1, keepdim=True).clamp_min(1e-12).rsqrt()  # the floor of the released code


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """x^T y for unit rows, [..., D] x [..., D] -> [...]. Element-wise, hence exact where matmuls run in TF32."""
    return (x * y).sum(-1)


def off_diagonal(square: Tensor) -> Tensor:
    """The matrix [D, D] with zeros on its diagonal.

    >>> off_diagonal(torch.ones(2, 2))
    tensor([[0., 1.],
            [1., 0.]])
    """
    return square - square.diagonal().diag()


@contextmanager
def full_precision(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors in one dtype, at least float32, with autocast off: log-densities are differences of large numbers.

    >>> with full_precision(torch.ones(2, dtype=torch.bfloat16), torch.ones(2)) as (x, y):
    ...     x.dtype, y.dtype
    (torch.float32, torch.float32)
    """
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    with torch.autocast(tensors[0].device.type, enabled=False):
        yield tuple(tensor.to(dtype) for tensor in tensors)


def identity(x: Tensor) -> Tensor:
    """What stands for a mean over processes where there is one."""
    return x


def average(first: Terms, second: Terms) -> Terms:
    """The terms of the two directions, averaged."""
    return {name: (value + second[name]) / 2 for name, value in first.items()}


def check_positive(**numbers: float) -> None:
    """Refuse anything but finite numbers above zero.

    Raises:
        UsageError: otherwise.
    """
    for name, number in numbers.items():
        if not (math.isfinite(number) and number > 0):
            raise UsageError(f"{name} is {number}.", f"Give a finite {name} greater than 0.")


def check_count(at_least: int = 1, **numbers: int) -> None:
    """Refuse anything but whole numbers of at least ``at_least``.

    Raises:
        UsageError: otherwise.
    """
    for name, number in numbers.items():
        if not (isinstance(number, int) and number >= at_least):
            raise UsageError(f"{name} is {number}.", f"Give a whole number of at least {at_least} as {name}.")


def check_not_negative(**numbers: float) -> None:
    """Refuse anything but finite numbers of at least zero.

    Raises:
        UsageError: otherwise.
    """
    for name, number in numbers.items():
        if not (math.isfinite(number) and number >= 0):
            raise UsageError(f"{name} is {number}.", f"Give a finite {name} of at least 0.")


def check_rows(embeddings: dict[str, Tensor], at_least: int = 1) -> None:
    """Refuse embeddings that are not all [N, D] with one N and one D.

    Raises:
        UsageError: for another number of axes, differing shapes, or fewer than ``at_least`` images.
    """
    shapes = {name: tuple(x.shape) for name, x in embeddings.items()}
    told = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    shape = next(iter(shapes.values()))
    if len(shape) != 2 or any(other != shape for other in shapes.values()):
        raise UsageError(f"The embeddings have shapes {told}.", "Give each as [images, dimensions], all of one shape.")
    if shape[0] < at_least:
        raise UsageError(
            f"The batch holds {shape[0]} image(s).",
            f"Give at least {at_least}: the other images are the negatives, or give the statistics.",
        )


def check_pairs(**pairs: Pair) -> None:
    """Refuse pairs of embeddings that are not (view 1, view 2), both [N, D].

    Raises:
        UsageError: for anything but two tensors, or for shapes as in :func:`check_rows`.
    """
    for name, pair in pairs.items():
        if isinstance(pair, Tensor) or len(pair) != 2:
            raise UsageError(f"{name} is not a pair.", f"Give {name} as (view 1, view 2), each [images, dimensions].")
        check_rows({f"{name}[{view}]": x for view, x in enumerate(pair)})

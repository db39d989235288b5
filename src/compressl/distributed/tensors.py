"""Tensors over all ranks, with the gradients that make N processes one.

One convention for all of them: J is the sum over ranks of their losses, every backward here is a derivative of J, and
:func:`average_gradients` divides by the number of ranks, which leaves the derivative of the mean of the losses.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from compressl.distributed.team import collective, largest, rank, world_size
from compressl.errors import UsageError


def gather(x: Tensor) -> Tensor:
    """The rows of every rank in rank order, [N, ...] -> [ranks N, ...]; backward is reduce-scatter(sum).

    Why sum, with x_r = x(batch_r; theta) and R ranks that all compute the same loss L(x_1, ..., x_R). Backward on every
    rank starts with the same G_r = dL/dx_r, and the sum over ranks hands rank r the gradient R G_r. Its parameters get
    R J_r^T G_r (J_r = dx_r/dtheta), and the average over ranks that data-parallel training takes is

        (1/R) sum_r R J_r^T G_r = sum_r J_r^T G_r = dL/dtheta,

    the gradient of one process on the whole batch. It stays true when the ranks' losses differ (each on its own
    anchors) and L is their mean.

    Raises:
        UsageError: if the ranks hold different numbers of rows.

    >>> gather(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    if world_size() == 1:
        return x
    # A collective on unequal shapes would hang or return rubbish. Asked on the host: a device would be waited for.
    most, fewest = largest(torch.tensor([len(x), -len(x)])).abs().tolist()
    if fewest < most:
        raise UsageError(
            f"The ranks hold batches of {fewest} to {most} images.",
            "Give every rank the same number: drop the last, incomplete batch.",
        )
    return cast(Tensor, _Gather.apply(x))  # type: ignore[no-untyped-call]


def local(x: Tensor) -> Tensor:
    """This rank's rows of a gathered tensor, [ranks N, ...] -> [N, ...].

    Raises:
        UsageError: if the rows cannot be shared out equally.

    >>> local(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    if x.shape[0] % world_size():
        raise UsageError(
            f"{x.shape[0]} rows cannot be shared out over {world_size()} ranks.", "Give rows that come from gather."
        )
    rows = x.shape[0] // world_size()
    return x[rank() * rows : (rank() + 1) * rows]


def mean(x: Tensor) -> Tensor:
    """The mean over ranks, any shape, the same on every rank; backward is the mean as well.

    With L = mean(l_r) on every rank, rank r's l_r gets the gradient (1/R) sum_r 1 = 1, its parameters get dl_r/dtheta,
    and the average over ranks is dL/dtheta.

    >>> mean(torch.tensor(2.0))
    tensor(2.)
    """
    return x if world_size() == 1 else cast(Tensor, _Mean.apply(x))  # type: ignore[no-untyped-call]


@torch.no_grad()
def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over ranks: dJ/dtheta of the sum of losses becomes that of their mean.

    A parameter without a gradient on every rank keeps none (the optimizer then leaves it alone); one that has a
    gradient on some ranks counts as zero on the others. One all-reduce for each dtype.

    >>> average_gradients([torch.zeros(2, requires_grad=True)])
    """
    parameters = [p for p in parameters if p.requires_grad]
    if world_size() == 1 or not parameters:
        return
    somewhere = largest(torch.tensor([p.grad is not None for p in parameters]).int())
    buckets: dict[torch.dtype, list[Tensor]] = {}
    for parameter, present in zip(parameters, somewhere.tolist(), strict=True):
        if present:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            buckets.setdefault(parameter.dtype, []).append(parameter.grad)
    for gradients in buckets.values():
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        means = torch.split(_mean(flat), [gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [m.view(g.shape) for m, g in zip(means, gradients, strict=True)])


@torch.no_grad()
def average(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mean over ranks of each of some scalars, without gradient, in one collective.

    >>> average({"loss": torch.tensor(2.0)})
    {'loss': tensor(2.)}
    """
    if world_size() == 1 or not values:
        return values
    means = _mean(torch.stack([value.detach().double() for value in values.values()]))
    return {name: m.to(value.dtype) for (name, value), m in zip(values.items(), means, strict=True)}


@torch.no_grad()
def each(x: Tensor) -> Tensor:
    """What every rank holds, without gradient: [...] -> [ranks, ...], the same on every rank.

    >>> each(torch.ones(3)).shape
    torch.Size([1, 3])
    """
    if world_size() == 1:
        return x[None]
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
    with collective():
        dist.all_gather(parts, x.contiguous())
    return torch.stack(parts)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        with collective():
            dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return local(_sum(gradient))  # and a slice: reduce-scatter for every backend, and embeddings are small


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _mean(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _mean(gradient)


def _mean(x: Tensor) -> Tensor:
    return _sum(x) / world_size()


def _sum(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    with collective():
        dist.all_reduce(total)
    return total

"""The only collectives. Without a process group every function is the identity.

Objectives never know ranks: a method gathers what enters its objective, and every rank computes the loss of the global
batch, with the same noise from the same generator. N processes then train exactly as one process does.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from compressl.errors import UsageError


def world_size() -> int:
    """How many processes train together.

    >>> world_size()
    1
    """
    return dist.get_world_size() if _initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0.

    >>> rank()
    0
    """
    return dist.get_rank() if _initialized() else 0


def is_main() -> bool:
    """Whether this process is the one that writes.

    >>> is_main()
    True
    """
    return rank() == 0


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
    rows = torch.tensor([x.shape[0]], device=x.device)
    counts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(counts, rows)
    sizes = [int(count) for count in counts]  # a collective on unequal shapes would hang or return rubbish
    if len(set(sizes)) > 1:
        raise UsageError(
            f"The ranks hold batches of {', '.join(map(str, sizes))} images.",
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


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)  # and a slice: reduce-scatter for every backend, and embeddings are small
        return local(total)


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _mean(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _mean(gradient)


def _mean(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / world_size()

"""Batch norm over the batch of all processes.

torch's own SyncBatchNorm is for CUDA alone; this one is made of torch's batch norm of one process, which any device
has: once for the statistics of the own images, once with those of all.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from compressl import distributed
from compressl.errors import UsageError


class _Synchronized(_BatchNorm):
    """In training mode, with the mean and variance over all processes; otherwise the batch norm that it was."""

    def forward(self, input: Tensor) -> Tensor:  # the name that the parent gives it
        if not self.training or distributed.world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        with torch.autocast(input.device.type, enabled=False):
            mean, variance = _statistics(input, self.eps)
            self._track(mean, variance, distributed.world_size() * input.numel() // len(mean))
            out = _Normalize.apply(input, self.weight, self.bias, mean, variance, self.eps)  # type: ignore[no-untyped-call]
        return cast(Tensor, out)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """The running statistics, as torch keeps them: the variance unbiased, over the values of all processes."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        for running, now in ((self.running_mean, mean), (self.running_var, variance * count / (count - 1))):
            running.lerp_(now.to(running.dtype), share)


@torch.no_grad()
def _statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and biased variance [C] of [N, C, ...] over all processes, which hold equally many values.

    The variance is the mean of the processes' own ones, plus that of their means (Chan, Golub and LeVeque 1983).
    """
    unused = torch.zeros(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    # bfloat16 has statistics in float32 only beside running ones in float32, which a momentum of 0 leaves alone
    _, mean, inverse = torch.native_batch_norm(x, None, None, unused, unused, True, 0.0, eps)
    means, variances = distributed.each(torch.stack([mean, inverse.pow(-2) - eps])).unbind(1)  # [ranks, C] each
    return means.mean(0), (variances + (means - means.mean(0)).square()).mean(0).clamp_min(0)


class _Normalize(torch.autograd.Function):
    """y = w (x - mean) / sqrt(variance + eps) + b, with the gradient that mean and variance are functions of all x:

        dx = w / s (dy - <dy> - x' <dy x'>),   x' = (x - mean) / s,   s = sqrt(variance + eps),

    <.> being the mean over the values of a channel on all processes (Ioffe and Szegedy 2015, section 3).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        inverse = (variance + ctx.eps).rsqrt()
        ones = torch.ones_like(mean) if weight is None else weight
        # as if the statistics were constants; of weight and bias these are the sums of dy x' and of dy
        dx, product, total = torch.ops.aten.native_batch_norm_backward(
            dy, x, ones, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        count = x.numel() // len(mean)
        both = distributed.each(torch.stack([total, product]) / count).mean(0)  # <dy>, <dy x'>
        slope = ones * inverse.square() * both[1]
        offset = ones * inverse * both[0] - slope * mean
        # slope x + offset, in the one pass that a batch norm of mean 0 and variance 1 makes
        dx.sub_(F.batch_norm(x, torch.zeros_like(mean), torch.ones_like(mean), slope, offset, False, 0.0, 0.0))
        return dx, product if weight is not None else None, total if weight is not None else None, None, None, None


class SynchronizedBatchNorm1d(_Synchronized, nn.BatchNorm1d):
    """Over [N, C] or [N, C, L]."""


class SynchronizedBatchNorm2d(_Synchronized, nn.BatchNorm2d):
    """Over [N, C, H, W]."""


class SynchronizedBatchNorm3d(_Synchronized, nn.BatchNorm3d):
    """Over [N, C, D, H, W]."""


_SYNCHRONIZED: dict[type[_BatchNorm], type[_Synchronized]] = {
    nn.BatchNorm1d: SynchronizedBatchNorm1d,
    nn.BatchNorm2d: SynchronizedBatchNorm2d,
    nn.BatchNorm3d: SynchronizedBatchNorm3d,
}


def synchronize(module: nn.Module) -> nn.Module:
    """Let every batch norm of a module see the batch of all processes; the module itself, changed in place.

    Parameters, buffers and their names stay; so do other references to the norms. With one process nothing changes.

    Raises:
        UsageError: it holds a kind of batch norm that would see the images of its own process alone.

    >>> net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    >>> synchronize(net) is net
    True
    """
    if distributed.world_size() == 1:
        return module
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and not isinstance(norm, _Synchronized)]
    if foreign := {type(norm).__name__ for norm in norms if type(norm) not in _SYNCHRONIZED}:
        raise UsageError(
            f"Batch norm of kind {', '.join(sorted(foreign))} cannot be taken over several processes.",
            "Start one process, or choose another --encoder.",
        )
    for norm in norms:
        norm.__class__ = _SYNCHRONIZED[type(norm)]
    return module

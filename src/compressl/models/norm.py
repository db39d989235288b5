"""Batch norm over the batch of all processes.

torch's own SyncBatchNorm is for CUDA alone; this one is a few lines of differentiable arithmetic for any device.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
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
            x = input.to(torch.promote_types(input.dtype, torch.float32))  # [N, C, ...]
            axes = [axis for axis in range(x.ndim) if axis != 1]
            shape = [1, -1, *[1] * (x.ndim - 2)]
            # the processes hold equally many values, so the mean of means is the mean
            mean = distributed.mean(x.mean(axes))  # [C]
            centred = x - mean.view(shape)
            variance = distributed.mean(centred.square().mean(axes))  # [C], biased
            self._track(mean.detach(), variance.detach(), distributed.world_size() * x.numel() // len(mean))
            scale = (variance + self.eps).rsqrt()
            if self.weight is not None:
                scale = scale * self.weight
            out = centred * scale.view(shape)
            if self.bias is not None:
                out = out + self.bias.view(shape)
        return out.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """The running statistics, as torch keeps them: the variance unbiased, over the values of all processes."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        for running, now in ((self.running_mean, mean), (self.running_var, variance * count / (count - 1))):
            running.lerp_(now.to(running.dtype), share)


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

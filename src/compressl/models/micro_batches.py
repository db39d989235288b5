"""An encoder that takes a large batch in micro-batches, with the gradient of the whole batch.

A contrastive loss compares all images of a batch, so its gradient is no sum over parts of the batch. But it reaches the
encoder's weights through the features alone, and those are small (Gao et al. 2021, "Scaling Deep Contrastive Learning
Batch Size under Memory Limited Setup", arXiv:2101.06983, section 3):

    dL/dtheta = sum_i  dL/df(x_i) . df(x_i)/dtheta        over the images x_i.

So the encoder passes twice. First without a graph, which leaves features; heads and objective take those of the whole
batch and give dL/df. Then, when that gradient arrives, with a graph for one micro-batch at a time. The memory is that
of one micro-batch and of the images themselves, the price one more forward pass.

Batch norm inside the encoder is over a micro-batch, as it is in gradient accumulation. Everything else is the whole
batch: the batch norm of the heads, and the gradient, which equals that of one graph over the same micro-batches. Both
passes see the same buffers, random numbers and precision; running statistics move in the first one only.

With plain PyTorch:

>>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 32))  # yours
>>> features = chunked(encoder, 4)(torch.randn(64, 3, 8, 8))  # four micro-batches of 16
>>> features.square().mean().backward()
>>> encoder[1].weight.grad.shape
torch.Size([32, 192])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from compressl.errors import UsageError


def chunked(encoder: nn.Module, micro_batches: int) -> nn.Module:
    """Let an encoder take each batch in this many micro-batches while it trains; itself, changed in place.

    Weights, buffers and their names stay, and a copy is chunked too: a slow copy that is made afterwards saves as much.
    Micro-batch i of k is rows i, i + k, i + 2k, ...: of views on top of one another, [V N, 3, H, W], it has all views
    of the same images, and on several processes it is the same images as on one. In evaluation mode nothing changes.

    Args:
        encoder: maps images [N, ...] to features [N, F], one batch and nothing else.

    Raises:
        UsageError: no number of micro-batches; later, a batch that does not consist of so many, or that asks for a
            gradient of its own.

    >>> net = nn.Linear(3, 4)
    >>> chunked(net, 2) is net
    True
    """
    if micro_batches < 1:
        raise UsageError(f"There are no {micro_batches} micro-batches of a batch.", "Give 1 or more.")
    if micro_batches > 1:
        kind = type(encoder)
        # a class of its own, as a call is looked up there: outside of hooks and of what torch.compile makes of it
        encoder.__class__ = type(kind.__name__, (_Chunked, kind), {"micro_batches": micro_batches})
    return encoder


class _Chunked(nn.Module):
    micro_batches: int

    def __call__(self, images: Tensor) -> Tensor:
        encode = super().__call__
        if not self.training:
            return cast(Tensor, encode(images))
        if len(images) % self.micro_batches:
            raise UsageError(
                f"A batch of {len(images)} images does not consist of {self.micro_batches} equal micro-batches.",
                f"Give a multiple of {self.micro_batches} images.",
            )
        if images.requires_grad:
            raise UsageError("No gradient of the images passes micro-batches.", "Detach them, or give no micro-batch.")
        weights = [weight for weight in self.parameters() if weight.requires_grad]
        return cast(Tensor, _TwoPasses.apply(self, encode, images, *weights))  # type: ignore[no-untyped-call]


class _TwoPasses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, encoder: _Chunked, encode: Callable[[Tensor], Tensor], images: Tensor, *w: Tensor) -> Tensor:
        ctx.encode, ctx.count, ctx.before = encode, encoder.micro_batches, _Moment(encoder, images.device)
        ctx.save_for_backward(images, *w)
        with ctx.before.precision():
            features = [encode(images[i :: ctx.count]) for i in range(ctx.count)]  # here torch makes no graph
        return torch.stack(features, dim=1).flatten(0, 1)  # [N, F], in the order of the images

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, *weights = ctx.saved_tensors
        totals: list[Tensor | None] = [None] * len(weights)
        with ctx.before.again():
            for i in range(ctx.count):
                with torch.enable_grad(), ctx.before.precision():
                    features = ctx.encode(images[i :: ctx.count])
                parts = torch.autograd.grad(features, weights, gradient[i :: ctx.count], allow_unused=True)
                totals = [_sum(total, part) for total, part in zip(totals, parts, strict=True)]
        return None, None, None, *totals


def _sum(total: Tensor | None, part: Tensor | None) -> Tensor | None:
    """Not in place: torch may hand out one gradient for two weights."""
    return part if total is None else total if part is None else total + part


class _Moment:
    """What a pass depends on beside its images and weights: buffers, random numbers, precision."""

    def __init__(self, encoder: nn.Module, device: torch.device) -> None:
        self.encoder, self.device = encoder, device
        self.buffers = [buffer.clone() for buffer in encoder.buffers()]
        self.random = [torch.get_rng_state()]
        if device.type == "cuda":
            self.random.append(torch.cuda.get_rng_state(device))
        elif device.type == "mps":
            self.random.append(torch.mps.get_rng_state())
        self.autocast = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)

    def precision(self) -> torch.autocast:
        """Without autocast's cache, so that no pass meets a cast weight whose graph is missing or freed."""
        enabled, dtype = self.autocast
        return torch.autocast(self.device.type, dtype, enabled, cache_enabled=False)

    @contextmanager
    def again(self) -> Iterator[None]:
        """As it was at this moment, and afterwards as it is now."""
        now = _Moment(self.encoder, self.device)
        self._restore()
        try:
            yield
        finally:
            now._restore()

    @torch.no_grad()
    def _restore(self) -> None:
        for buffer, then in zip(self.encoder.buffers(), self.buffers, strict=True):
            buffer.copy_(then)
        torch.set_rng_state(self.random[0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(self.random[1], self.device)
        elif self.device.type == "mps":
            torch.mps.set_rng_state(self.random[1])

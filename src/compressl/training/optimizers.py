"""Optimizers over two groups of parameters: weights, which decay, and norms and biases, which do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from compressl.settings.pretrain import OptimizerSettings


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling (You et al. 2017), as in the code of Compressive Visual Representations.

    For a weight w with gradient g, in a group with ``adapt``::

        g <- g + weight_decay w
        r = trust ||w|| / ||g||   if both norms are positive, else 1
        v <- momentum v + lr r g
        w <- w - v                                     (the learning rate is inside the buffer)

    A group without ``adapt`` has r = 1. All parameters of a group are updated by a few batched calls.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 1e-3,
        adapt: bool = True,
    ) -> None:
        super().__init__(
            params,
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapt": adapt},
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            grads = [p.grad for p in weights]
            if group["weight_decay"]:
                grads = list(torch._foreach_add(grads, weights, alpha=group["weight_decay"]))
            if group["adapt"]:
                rates = torch.stack(torch._foreach_norm(weights)), torch.stack(torch._foreach_norm(grads))
                ratio = torch.where((rates[0] > 0) & (rates[1] > 0), group["trust"] * rates[0] / rates[1], 1.0)
                grads = list(torch._foreach_mul(grads, list(ratio.unbind())))
            buffers: list[Tensor] = [self.state[p].setdefault("momentum_buffer", torch.zeros_like(p)) for p in weights]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, grads, alpha=group["lr"])
            torch._foreach_sub_(weights, buffers)
        return loss


def create_optimizer(settings: OptimizerSettings, module: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a module's trainable parameters; the learning rate is set by the loop at every step."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    weights = [p for p in trainable if p.ndim > 1]
    others = [p for p in trainable if p.ndim <= 1]  # scales and offsets of norms, biases
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if settings.name == "lars":
        groups[1]["adapt"] = False
        return LARS(groups, momentum=settings.momentum)
    fused = all(p.is_cuda for p in trainable) or None  # one kernel instead of several for each batch of weights
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=(settings.momentum, 0.999), fused=fused)
    return torch.optim.SGD(groups, lr=0.0, momentum=settings.momentum, nesterov=settings.momentum > 0, fused=fused)

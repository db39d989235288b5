"""Learning rate as a closed form of the step, so that a resumed run needs no saved scheduler."""

from __future__ import annotations

import math


def cosine_with_warmup(step: int, total: int, warmup: int, peak: float) -> float:
    """Linear from 0 to ``peak`` over ``warmup`` steps, then a cosine to 0 at ``total``.

    The schedule of the official code of Compressive Visual Representations, stepped per iteration.

    >>> [cosine_with_warmup(t, 12, 2, 1.0) for t in (0, 1, 2, 7, 12)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if step < warmup:
        return peak * step / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))) / 2


def warmup_steps(warmup_epochs: float, steps_per_epoch: float, total: int) -> int:
    """Steps of warm-up: what was asked for, but no more than a tenth of a short training."""
    return min(int(warmup_epochs * steps_per_epoch), total // 10)

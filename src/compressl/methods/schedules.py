"""Numbers of a method that change during the training, as closed forms of its progress."""

from __future__ import annotations

import math


def rising(progress: float, end: float, schedule: str, warmup: float) -> float:
    """beta at a share ``progress`` of the training: the three schedules of the official code of Compressive Visual
    Representations.

    Args:
        end: the value that is reached.
        schedule: ``constant``; ``linear``, from 0 over the first ``warmup`` of the training; ``cosine``, from 0 over
            all of it.
        warmup: share of the training.

    >>> [rising(p, 2.0, "linear", 0.5) for p in (0.0, 0.25, 0.5, 1.0)]
    [0.0, 1.0, 2.0, 2.0]
    >>> [round(rising(p, 2.0, "cosine", 0.5), 3) for p in (0.0, 0.5, 1.0)]
    [0.0, 1.0, 2.0]
    """
    if schedule == "linear":
        return end * min(1.0, progress / warmup)
    if schedule == "cosine":
        return end * (1 - math.cos(math.pi * progress)) / 2
    return end

"""The only collectives. Without a process group every function is the identity.

Objectives never know ranks: a method gathers what enters its objective, and every rank computes the loss of the global
batch, with the same noise from the same generator. N processes then train exactly as one process does.

``team.py`` is about processes: how they meet, what they agree on, how they end. ``tensors.py`` is about tensors and
their gradients.
"""

from compressl.distributed.team import (
    any_rank,
    barrier,
    from_main,
    in_turn,
    is_main,
    own_device,
    processes,
    processes_here,
    rank,
    world_size,
)
from compressl.distributed.tensors import average, average_gradients, each, gather, local, mean

__all__ = [
    "any_rank",
    "average",
    "average_gradients",
    "barrier",
    "each",
    "from_main",
    "gather",
    "in_turn",
    "is_main",
    "local",
    "mean",
    "own_device",
    "processes",
    "processes_here",
    "rank",
    "world_size",
]

"""A weight adapted to a target: dual ascent on the multiplier of a constraint. Ours; the papers search a grid.

A method whose loss is ``task + weight * quantity`` can instead be told what the quantity shall be. The weight then
climbs while the measured quantity lies above the target and falls while it lies below:

    log weight  <-  log weight + rate * clip(measured / target - 1, -1, 1)

The other way round for a quantity that the weight raises, such as an entropy that is rewarded.
The steps are those of a gradient ascent on the Lagrangian in log weight, scaled by the target and cut off, so that one
rate serves a target of a tenth of a bit and one of ten, and a weight never turns negative.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from compressl.objectives.common import check_positive

LOWEST, HIGHEST = 1e-4, 1e4  # the weight stays within, so that a target out of reach is not chased for ever


class Multiplier(nn.Module):
    """A positive weight that holds a measured quantity at a target.

    Args:
        start: the weight to begin with; small, as an ascent from next to no price leaves the task time to find its
            feet, where a price that is too high at first stalls it.
        target: what the quantity shall be, in its own unit, above 0.
        rate: relative change of the weight in a step at an error of 100 %. The network needs some tens of steps to
            answer a new weight, so a much larger rate makes the weight swing (0.05: ours, by experiment on the digits).
        lowest: the weight never falls below.
        raises: whether a larger weight makes the quantity larger; by default it makes it smaller.

    >>> beta = Multiplier(start=1.0, target=2.0, rate=0.1)
    >>> beta.hold(torch.tensor(3.0))  # 50 % too much: a higher price
    tensor(1.0513)
    """

    log_value: Tensor

    def __init__(
        self, start: float, target: float, rate: float = 0.05, lowest: float = LOWEST, *, raises: bool = False
    ) -> None:
        super().__init__()
        check_positive(start=start, target=target, rate=rate, lowest=lowest)
        self.target, self.rate, self.sign = target, rate, -1 if raises else 1
        self.bounds = math.log(lowest), math.log(HIGHEST)
        # a buffer: it is part of a checkpoint, and a step that is skipped leaves it as it was
        self.register_buffer("log_value", torch.tensor(math.log(max(start, lowest))))

    def value(self) -> Tensor:
        """The weight, a scalar without gradient."""
        return self.log_value.exp()

    @torch.no_grad()
    def hold(self, measured: Tensor) -> Tensor:
        """In training, one step of ascent; the weight from now on, a scalar without gradient.

        Args:
            measured: the quantity over the whole batch, alike on every process.
        """
        if self.training:
            error = (measured / self.target - 1).clamp(-1, 1)
            self.log_value += self.sign * self.rate * error
            self.log_value.clamp_(*self.bounds)
        return self.value()

    def extra_repr(self) -> str:
        return f"target={self.target:g}, rate={self.rate}"


def residual_multiplier(target_bits: float | None) -> Multiplier | None:
    """The beta that holds the residual information above its floor at so many bits, or None without a target.

    The floor is what the two concentrations cost at equal mean directions; no beta lowers it.

    >>> residual_multiplier(2.0)
    Multiplier(target=1.38629, rate=0.05)
    """
    return None if target_bits is None else Multiplier(0.01, target_bits * math.log(2))

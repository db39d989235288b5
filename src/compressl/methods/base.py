"""What the training loop knows of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Method(nn.Module, ABC):
    """An encoder, its heads and an objective, as one module.

    Attributes:
        encoder: what is kept after training; maps images [N, 3, H, W] to features [N, F].

    At every step the loop calls ``before_step``, ``forward``, back-propagates, steps the optimizer and calls
    ``after_step``. It knows nothing else.
    """

    encoder: nn.Module

    @abstractmethod
    def forward(
        self, views: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch (a mean over its images) and its terms in nats, detached.

        Args:
            views: one batch [N, 3, H, W] per view, the same images in each: two views, then the small crops of a
                multi-crop method.
            generator: source of the noise of a stochastic encoder, alike on every process.
        """

    @abstractmethod
    def embed(self, view: Tensor) -> Tensor:
        """What the objective compares, [N, D]: where a collapse shows first."""

    def before_step(self, progress: float) -> None:
        """Called before each step with the share of the training that lies behind: the place for schedules."""

    def after_step(self, progress: float) -> None:
        """Called after each optimizer step, with the same share: the place for slow copies."""

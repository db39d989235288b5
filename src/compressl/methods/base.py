"""What the training loop knows of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compressl.measures.channels import Channel


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

    def channel(self, features: Tensor) -> Channel | None:
        """The density e(z|x) that was trained, from features [N, F] of the encoder; None where codes have no noise.

        The heads are taken in evaluation mode.
        """
        return None

    @property
    def slow_encoder(self) -> nn.Module | None:
        """The slow copy of the encoder that the backward encoder b(z|y) sees its view with; None where it has none."""
        return None

    def residual_information(self, a: Tensor, b: Tensor) -> Tensor | None:
        """KL( e(z|x) || b(z|y) ) less its floor in nats for each image, [N]: the excess, as the training logs it.

        Its expectation plus the floor is at least I(X;Z|Y); the floor is what the two concentrations cost alone. None
        where no backward encoder was trained. The heads are taken in evaluation mode.

        Args:
            a: features [N, F] of the view x by the encoder.
            b: features [N, F] of what b is given: of the *other* view by the same encoder, or, where there is a
                :attr:`slow_encoder`, of the *same* view by that.
        """
        return None

    def before_step(self, progress: float) -> None:
        """Called before each step with the share of the training that lies behind: the place for schedules."""

    def after_step(self, progress: float) -> None:
        """Called after each optimizer step, with the same share: the place for slow copies."""


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """The modules in evaluation mode for a while.

    >>> head = nn.Dropout()
    >>> with evaluating(head):
    ...     head.training
    False
    >>> head.training
    True
    """
    before = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, was in zip(modules, before, strict=True):
            module.train(was)

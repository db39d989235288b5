"""SimCLR (Chen et al. 2020): tell two views of an image from the views of all others.

The head (one hidden layer, no output norm) and the joint pass of both views are those of the baseline in Compressive
Visual Representations, so that C-SimCLR differs from this file by its objective alone.

With plain PyTorch:

>>> from compressl.settings.methods import SimCLRSettings
>>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 32))  # yours
>>> method = SimCLR(SimCLRSettings(hidden=64, dim=16), encoder, features=32)
>>> optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
>>> for step in range(2):
...     views = [torch.randn(16, 3, 8, 8), torch.randn(16, 3, 8, 8)]  # yours: two views of the same images
...     loss, terms = method(views)
...     optimizer.zero_grad()
...     loss.backward()
...     optimizer.step()
>>> bool(terms["mutual_information_bound"] < torch.tensor(31.0).log())  # nats; what a batch of 16 can tell at most
True
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compressl.distributed import gather
from compressl.methods.base import Method
from compressl.models.heads import mlp
from compressl.objectives import SimCLRLoss
from compressl.settings.methods import SimCLRSettings


class SimCLR(Method):
    """views -> f -> g -> InfoNCE."""

    def __init__(self, settings: SimCLRSettings, encoder: nn.Module, features: int) -> None:
        super().__init__()
        self.encoder = encoder  # f
        self.projection = mlp(features, settings.hidden, settings.dim)  # g
        self.objective = SimCLRLoss(settings.temperature)

    def forward(
        self, views: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        a, b = self.embed(torch.cat(list(views))).chunk(2)  # one pass: batch statistics are over both views
        loss, terms = self.objective(gather(a), gather(b))
        return loss, terms

    def embed(self, view: Tensor) -> Tensor:
        out: Tensor = self.projection(self.encoder(view))
        return out

"""VICReg (Bardes et al. 2022): pull two views together, and keep every dimension alive and of its own.

Each view passes on its own (batch statistics per view), as in the official code. The expander has three linear layers
and no bias at the output; the biases that the official code has before its batch norms are left out, as the norms
subtract them. Nothing is normalised before the objective.

With plain PyTorch:

>>> from compressl.settings.methods import VICRegSettings
>>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 32))  # yours
>>> method = VICReg(VICRegSettings(hidden=64, dim=64), encoder, features=32)
>>> optimizer = torch.optim.SGD(method.parameters(), lr=0.01, momentum=0.9)
>>> for step in range(2):
...     views = [torch.randn(16, 3, 8, 8), torch.randn(16, 3, 8, 8)]  # yours: two views of the same images
...     loss, terms = method(views)
...     optimizer.zero_grad()
...     loss.backward()
...     optimizer.step()
>>> sorted(terms)
['covariance', 'invariance', 'variance']
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compressl.distributed import gather
from compressl.methods.base import Method
from compressl.models.heads import mlp
from compressl.objectives import VICRegLoss
from compressl.settings.methods import VICRegSettings


class VICReg(Method):
    """views -> f -> h -> invariance, variance, covariance."""

    def __init__(self, settings: VICRegSettings, encoder: nn.Module, features: int) -> None:
        super().__init__()
        self.encoder = encoder  # f
        self.projection = mlp(features, settings.hidden, settings.dim, layers=3)  # h, the expander
        self.objective = VICRegLoss(settings.invariance, settings.variance, settings.covariance, settings.epsilon)

    def forward(
        self, views: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        a, b = (gather(self.embed(view)) for view in views)
        loss, terms = self.objective(a, b)
        return loss, terms

    def embed(self, view: Tensor) -> Tensor:
        out: Tensor = self.projection(self.encoder(view))
        return out

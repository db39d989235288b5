"""Barlow Twins (Zbontar et al. 2021): make the cross-correlation of two views' embeddings the identity.

Each view passes on its own (batch statistics per view), as in the official code. The projection has three linear
layers without biases; the batch norm that the official code puts on its output is the objective's standardisation, over
the batch of all processes. The paper trains weights at a learning rate of 0.2 and norms at 0.0048 per 256 images, with
LARS: here one learning rate serves both, and ``scale`` makes up the ratio (0.0048 / 0.2).

With plain PyTorch:

>>> from compressl.settings.methods import BarlowTwinsSettings
>>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 32))  # yours
>>> method = BarlowTwins(BarlowTwinsSettings(hidden=64, dim=64), encoder, features=32)
>>> optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
>>> for step in range(2):
...     views = [torch.randn(16, 3, 8, 8), torch.randn(16, 3, 8, 8)]  # yours: two views of the same images
...     loss, terms = method(views)
...     optimizer.zero_grad()
...     loss.backward()
...     optimizer.step()
>>> sorted(terms)
['correlation', 'invariance', 'redundancy']
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compressl.distributed import gather
from compressl.methods.base import Method
from compressl.models.heads import mlp
from compressl.objectives import BarlowTwinsLoss
from compressl.settings.methods import BarlowTwinsSettings


class BarlowTwins(Method):
    """views -> f -> g -> cross-correlation."""

    def __init__(self, settings: BarlowTwinsSettings, encoder: nn.Module, features: int) -> None:
        super().__init__()
        self.encoder = encoder  # f
        self.projection = mlp(features, settings.hidden, settings.dim, layers=3)  # g
        self.objective = BarlowTwinsLoss(settings.off_diagonal)
        self.scale = settings.scale

    def forward(
        self, views: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        a, b = (gather(self.embed(view)) for view in views)
        loss, terms = self.objective(a, b)
        return self.scale * loss, terms

    def embed(self, view: Tensor) -> Tensor:
        out: Tensor = self.projection(self.encoder(view))
        return out

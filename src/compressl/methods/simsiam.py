"""SimSiam (Chen and He 2021): predict one view from the other, and hold the one that is predicted still.

Each view passes on its own (batch statistics per view), as in the official code. The projection ends in a batch norm
without scale and shift; the predictor is a bottleneck whose last layer has a bias. The official code can keep the
predictor's learning rate constant (``--fix-pred-lr``, the setting of its published model); here it follows the
schedule of all other weights.

With plain PyTorch:

>>> from compressl.settings.methods import SimSiamSettings
>>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 32))  # yours
>>> method = SimSiam(SimSiamSettings(hidden=64, dim=32, bottleneck=8), encoder, features=32)
>>> optimizer = torch.optim.SGD(method.parameters(), lr=0.03, momentum=0.9)
>>> for step in range(2):
...     views = [torch.randn(16, 3, 8, 8), torch.randn(16, 3, 8, 8)]  # yours: two views of the same images
...     loss, terms = method(views)
...     optimizer.zero_grad()
...     loss.backward()
...     optimizer.step()
>>> sorted(terms)
['alignment', 'spread']
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compressl.distributed import gather
from compressl.methods.base import Method
from compressl.models.heads import mlp
from compressl.objectives import SimSiamLoss
from compressl.settings.methods import SimSiamSettings


class SimSiam(Method):
    """views -> f -> g -> z, held still; z -> h -> p."""

    def __init__(self, settings: SimSiamSettings, encoder: nn.Module, features: int) -> None:
        super().__init__()
        self.encoder = encoder  # f
        self.projection = mlp(features, settings.hidden, settings.dim, layers=settings.layers, norm="plain")  # g
        self.predictor = mlp(settings.dim, settings.bottleneck, settings.dim, bias=True)  # h
        self.objective = SimSiamLoss(stop_gradient=settings.stop_gradient)

    def forward(
        self, views: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        z = [self.embed(view) for view in views]
        predictions = [gather(self.predictor(x)) for x in z]
        loss, terms = self.objective(predictions, [gather(x) for x in z])
        return loss, terms

    def embed(self, view: Tensor) -> Tensor:
        out: Tensor = self.projection(
            self.encoder(view)
        )  # z, where a collapse shows: the predictor's bias would hide it
        return out

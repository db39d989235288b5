"""BYOL (Grill et al. 2020): predict, from one view, what a slow copy of the network says of the other.

Each view passes on its own (batch statistics per view), the slow copy in training mode, as in the official code.

With plain PyTorch:

>>> from compressl.settings.methods import BYOLSettings
>>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 32))  # yours
>>> method = BYOL(BYOLSettings(hidden=64, dim=16), encoder, features=32)
>>> optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
>>> for step in range(2):
...     views = [torch.randn(16, 3, 8, 8), torch.randn(16, 3, 8, 8)]  # yours: two views of the same images
...     loss, terms = method(views)
...     optimizer.zero_grad()
...     loss.backward()
...     optimizer.step()
...     method.after_step(progress=step / 2)  # the slow copy follows
>>> sorted(terms)
['alignment', 'regression']
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compressl.distributed import gather
from compressl.methods.base import Method
from compressl.models import ema
from compressl.models.heads import mlp
from compressl.objectives import BYOLLoss
from compressl.settings.methods import BYOLSettings


class BYOL(Method):
    """online: views -> f -> g -> q; target: views -> f' -> g', an exponential moving average."""

    def __init__(self, settings: BYOLSettings, encoder: nn.Module, features: int) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = encoder  # f
        self.projection = mlp(features, settings.hidden, settings.dim)  # g
        self.predictor = mlp(settings.dim, settings.hidden, settings.dim)  # q
        self.target = ema.slow_copy(nn.Sequential(self.encoder, self.projection))  # g' f'
        self.objective = BYOLLoss(settings.weight)

    def forward(
        self, views: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        predictions = [gather(self.predictor(self.embed(view))) for view in views]
        with torch.no_grad():
            targets = [gather(self.target(view)) for view in views]
        loss, terms = self.objective(predictions, targets)
        return loss, terms

    def embed(self, view: Tensor) -> Tensor:
        out: Tensor = self.projection(self.encoder(view))
        return out

    def after_step(self, progress: float) -> None:
        fast = nn.Sequential(self.encoder, self.projection)
        ema.update(self.target, fast, ema.momentum_at(progress, self.settings.ema))

"""MoCo v3 (Chen, Xie and He 2021): tell, from one view, which embedding a slow copy gives to the other.

Each view passes on its own (batch statistics per view), the slow copy in training mode, as in the official code; the
keys are those of the batch, there is no queue. The projection ends in a batch norm without scale and shift. The paper's
frozen patch projection, for ViT encoders, is left to the encoder.

The official code updates the slow copy at the beginning of a step, here it is at the end of the one before: the keys
are the same, but for a momentum one step younger.

With plain PyTorch:

>>> from compressl.settings.methods import MoCoSettings
>>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 32))  # yours
>>> method = MoCo(MoCoSettings(hidden=64, dim=16), encoder, features=32)
>>> optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.06, momentum=0.9)
>>> for step in range(2):
...     views = [torch.randn(16, 3, 8, 8), torch.randn(16, 3, 8, 8)]  # yours: two views of the same images
...     loss, terms = method(views)
...     optimizer.zero_grad()
...     loss.backward()
...     optimizer.step()
...     method.after_step(progress=step / 2)  # the slow copy follows
>>> sorted(terms)[:2]
['alignment', 'contrastive_accuracy']
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compressl.distributed import gather
from compressl.methods.base import Method
from compressl.models import ema
from compressl.models.heads import mlp
from compressl.objectives import MoCoLoss
from compressl.settings.methods import MoCoSettings


class MoCo(Method):
    """queries: views -> f -> g -> q; keys: views -> f' -> g', an exponential moving average."""

    def __init__(self, settings: MoCoSettings, encoder: nn.Module, features: int) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = encoder  # f
        self.projection = mlp(features, settings.hidden, settings.dim, layers=settings.layers, norm="plain")  # g
        self.predictor = mlp(  # q
            settings.dim, settings.hidden, settings.dim, norm="plain" if settings.predictor_norm else "none"
        )
        self.target = ema.slow_copy(nn.Sequential(self.encoder, self.projection))  # g' f'
        self.objective = MoCoLoss(settings.temperature)

    def forward(
        self, views: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        queries = [gather(self.predictor(self.embed(view))) for view in views]
        with torch.no_grad():
            keys = [gather(self.target(view)) for view in views]
        loss, terms = self.objective(queries, keys)
        return loss, terms

    def embed(self, view: Tensor) -> Tensor:
        out: Tensor = self.projection(self.encoder(view))
        return out

    def after_step(self, progress: float) -> None:
        fast = nn.Sequential(self.encoder, self.projection)
        ema.update(self.target, fast, ema.momentum_at(progress, self.settings.ema))

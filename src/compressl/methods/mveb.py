"""MVEB (Wen et al. 2024): two views of an image agree, and the entropy of the embeddings keeps them apart.

No negatives and no predictor: a collapse is held off by the gradient of the entropy alone
(:mod:`compressl.objectives.mveb`). Crops pass one by one (batch statistics per crop), all through the online network,
the two views alone through the target. The target is a slow copy in training mode; with ``target="siamese"`` it is the
online network itself, with gradient through both arguments of the agreement. The released code updates the slow copy at
the start of a step and here it is at the end of the one before: the same copy, but for one step of its schedule.

In plain PyTorch:

>>> from compressl.settings.methods import MVEBSettings
>>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 32), nn.ReLU())
>>> method = MVEB(MVEBSettings(hidden=64, dim=16, group_size=8), encoder, features=32)
>>> optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
>>> for step in range(3):
...     views = [torch.randn(16, 3, 8, 8), torch.randn(16, 3, 8, 8)]  # two augmentations of the same images
...     loss, terms = method(views)
...     optimizer.zero_grad()
...     loss.backward()
...     optimizer.step()
...     method.after_step(progress=step / 3)
>>> sorted(terms)
['alignment', 'entropy_estimate', 'entropy_surrogate', 'score_norm', 'uniformity']
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compressl.distributed import gather
from compressl.methods.base import Method
from compressl.models import ema
from compressl.models.heads import mlp
from compressl.objectives import MVEBLoss
from compressl.settings.methods import MVEBSettings


class MVEB(Method):
    """online: crops -> f -> g; target: the two views -> f' -> g', an exponential moving average or the same network."""

    def __init__(self, settings: MVEBSettings, encoder: nn.Module, features: int) -> None:
        super().__init__()
        s = self.settings = settings
        self.encoder = encoder  # f
        self.projection = mlp(features, s.hidden, s.dim, layers=3, bias=True)  # g
        siamese = s.target == "siamese"
        self.target = None if siamese else ema.slow_copy(nn.Sequential(self.encoder, self.projection))  # g' f'
        self.objective = MVEBLoss(s.entropy_weight, s.ridge, s.min_bandwidth, s.group_size, s.estimator)

    def forward(
        self, views: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        online = [gather(self.embed(view)) for view in views]
        first, second = online[:2]
        if self.target is not None:
            with torch.no_grad():
                first, second = (gather(self.target(view)) for view in views[:2])
        loss, terms = self.objective(online, (first, second))
        return loss, terms

    def embed(self, view: Tensor) -> Tensor:
        out: Tensor = self.projection(self.encoder(view))
        return out

    def after_step(self, progress: float) -> None:
        if self.target is not None:
            fast = nn.Sequential(self.encoder, self.projection)
            ema.update(self.target, fast, ema.momentum_at(progress, self.settings.ema))

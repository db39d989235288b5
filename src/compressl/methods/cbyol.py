"""C-BYOL (Lee et al. 2021, "Compressive Visual Representations"): BYOL behind a conditional entropy bottleneck.

The predictor becomes stochastic: q gives the mean direction of e(z|x), z is drawn, and one linear layer W predicts the
slow copy's view of the *other* crop from it. A second head m turns the slow copy's embedding of the *same* crop into
the backward encoder b(z|y), which prices what z carries beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressl.distributed import gather
from compressl.methods.base import Method
from compressl.methods.schedules import rising
from compressl.models import ema
from compressl.models.heads import linear, mlp
from compressl.objectives import CBYOLLoss, VonMisesFisher
from compressl.settings.methods import CBYOLSettings


class CBYOL(Method):
    """online: views -> f -> g -> q -> mu; z ~ vMF(mu, kappa_e) -> W; target: views -> f' -> g' -> m."""

    def __init__(self, settings: CBYOLSettings, encoder: nn.Module, features: int) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = encoder  # f
        self.projection = mlp(features, settings.hidden, settings.dim)  # g
        self.predictor = mlp(settings.dim, settings.hidden, settings.dim)  # q, up to the mean direction
        self.decoder = linear(settings.dim, settings.dim)  # W
        self.target = ema.slow_copy(nn.Sequential(self.encoder, self.projection))  # g' f'
        self.backward_encoder = mlp(settings.dim, settings.hidden, settings.dim)  # m, trained, no slow copy
        self.forward_encoder = VonMisesFisher(settings.dim, settings.kappa_e)  # e(z|x) about its mean
        self.objective = CBYOLLoss(settings.kappa_e, settings.kappa_b, settings.beta, settings.weight)

    def forward(
        self, views: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        # gathered before the draw: the noise is that of the global batch, alike on any number of processes
        means = [gather(self.embed(view)) for view in views]
        samples = [self.sample(mean, generator) for mean in means]
        predictions = [self.decoder(z) for z in samples]
        with torch.no_grad():
            targets = [self.target(view) for view in views]
        backward = [gather(self.backward_encoder(F.normalize(t.float(), dim=1))) for t in targets]
        targets = [gather(t) for t in targets]
        loss, terms = self.objective(predictions, targets, means, samples, backward)
        return loss, terms

    def sample(self, mean: Tensor, generator: torch.Generator | None) -> Tensor:
        """z ~ vMF(mu, kappa_e) in training, mu otherwise; [N, D] -> unit rows [N, D]."""
        with torch.autocast(mean.device.type, enabled=False):
            mu = F.normalize(mean.float() if mean.dtype is not torch.float64 else mean, dim=1)
            return self.forward_encoder.sample(mu, generator) if self.training else mu

    def before_step(self, progress: float) -> None:
        s = self.settings
        self.objective.beta = rising(progress, s.beta, s.beta_schedule, s.beta_warmup)

    def embed(self, view: Tensor) -> Tensor:
        out: Tensor = self.predictor(self.projection(self.encoder(view)))
        return out

    def after_step(self, progress: float) -> None:
        fast = nn.Sequential(self.encoder, self.projection)
        ema.update(self.target, fast, ema.momentum_at(progress, self.settings.ema))

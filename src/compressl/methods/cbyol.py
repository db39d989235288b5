"""C-BYOL (Lee et al. 2021, "Compressive Visual Representations"): BYOL behind a conditional entropy bottleneck.

The predictor becomes stochastic: q gives the mean direction of e(z|x), z is drawn, and one linear layer W predicts the
slow copy's view of the *other* crop from it. A second head m turns the slow copy's embedding of the *same* crop into
the backward encoder b(z|y), which prices what z carries beyond it.

With plain PyTorch:

>>> from compressl.settings.methods import CBYOLSettings
>>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 32))  # yours
>>> method = CBYOL(CBYOLSettings(hidden=64, dim=16), encoder, features=32)
>>> optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
>>> for step in range(2):
...     views = [torch.randn(16, 3, 8, 8), torch.randn(16, 3, 8, 8)]  # yours: two views of the same images
...     method.before_step(progress=step / 2)  # beta may follow a schedule
...     loss, terms = method(views)
...     optimizer.zero_grad()
...     loss.backward()
...     optimizer.step()
...     method.after_step(progress=step / 2)  # the slow copy follows
>>> "residual_information" in terms  # nats
True
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compressl.distributed import gather
from compressl.measures.channels import VonMisesFisherChannel
from compressl.methods.base import Method, evaluating
from compressl.methods.multiplier import residual_multiplier
from compressl.methods.schedules import rising
from compressl.models import ema
from compressl.models.heads import linear, mlp
from compressl.objectives import CBYOLLoss, VonMisesFisher
from compressl.objectives.common import full_precision, unit
from compressl.objectives.von_mises_fisher import von_mises_fisher
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
        self.multiplier = residual_multiplier(settings.target_residual_bits)

    def forward(
        self, views: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        # gathered before the draw: the noise is that of the global batch, alike on any number of processes
        means = [gather(self.embed(view)) for view in views]
        samples = [self.sample(mean, generator) for mean in means]
        predictions = [self.decoder(z) for z in samples]
        with torch.no_grad():
            targets = [self.target(view) for view in views]
        with full_precision(*targets) as full:
            directions = [unit(t) for t in full]
        backward = [gather(self.backward_encoder(t)) for t in directions]
        targets = [gather(t) for t in targets]
        loss, terms = self.objective(predictions, targets, means, samples, backward)
        if self.multiplier is not None:
            terms["beta"] = self.multiplier.hold(terms["residual_information_excess"])
        return loss, terms

    def sample(self, mean: Tensor, generator: torch.Generator | None) -> Tensor:
        """z ~ vMF(mu, kappa_e) in training, mu otherwise; [N, D] -> unit rows [N, D]."""
        with full_precision(mean) as (mean,):
            mu = unit(mean)
            return self.forward_encoder.sample(mu, generator) if self.training else mu

    def before_step(self, progress: float) -> None:
        s = self.settings
        if self.multiplier is None:
            self.objective.beta = rising(progress, s.beta, s.beta_schedule, s.beta_warmup)
        else:
            self.objective.beta = self.multiplier.value()

    def embed(self, view: Tensor) -> Tensor:
        out: Tensor = self.predictor(self.projection(self.encoder(view)))
        return out

    def channel(self, features: Tensor) -> VonMisesFisherChannel:
        """vMF(mu, kappa_e), whose mean direction is the output of the predictor q."""
        heads = nn.Sequential(self.projection, self.predictor)
        with evaluating(self.projection, self.predictor):
            out = heads(features)
        with full_precision(out) as (out,):
            return VonMisesFisherChannel(unit(out), self.settings.kappa_e)

    @property
    def slow_encoder(self) -> nn.Module:
        encoder, _ = self.target.children()
        return encoder

    def residual_information(self, a: Tensor, b: Tensor) -> Tensor:
        _, slow_projection = self.target.children()
        with evaluating(slow_projection, self.backward_encoder):
            with full_precision(slow_projection(b)) as (target,):
                direction = unit(target)
            out = self.backward_encoder(direction)
        with full_precision(out) as (out,):
            e, backward = self.forward_encoder, von_mises_fisher(self.settings.dim, self.settings.kappa_b)
            return e.kl(self.channel(a).mean_direction, backward, unit(out)) - e.kl_floor(backward)

    def after_step(self, progress: float) -> None:
        fast = nn.Sequential(self.encoder, self.projection)
        ema.update(self.target, fast, ema.momentum_at(progress, self.settings.ema))

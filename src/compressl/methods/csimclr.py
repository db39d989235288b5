"""C-SimCLR (Lee et al. 2021, "Compressive Visual Representations"): SimCLR behind a conditional entropy bottleneck.

No parameter is new. The projection becomes the mean direction of a von Mises-Fisher distribution e(z|x); z is drawn
from it, must still tell its image from the others, and pays beta nats for each nat that the other view b(z|y) cannot
predict.

With plain PyTorch:

>>> from compressl.settings.methods import CSimCLRSettings
>>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 32))  # yours
>>> method = CSimCLR(CSimCLRSettings(hidden=64, dim=16), encoder, features=32)
>>> optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
>>> for step in range(2):
...     views = [torch.randn(16, 3, 8, 8), torch.randn(16, 3, 8, 8)]  # yours: two views of the same images
...     method.before_step(progress=step / 2)  # beta may follow a schedule
...     loss, terms = method(views)
...     optimizer.zero_grad()
...     loss.backward()
...     optimizer.step()
>>> bool(terms["residual_information_excess"] > 0)  # nats that the other view cannot predict
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
from compressl.models.heads import mlp
from compressl.objectives import CSimCLRLoss
from compressl.objectives.common import full_precision, unit
from compressl.objectives.von_mises_fisher import von_mises_fisher
from compressl.settings.methods import CSimCLRSettings


class CSimCLR(Method):
    """views -> f -> g -> mu; z ~ vMF(mu, kappa_e) -> InfoNCE + beta * residual information."""

    def __init__(self, settings: CSimCLRSettings, encoder: nn.Module, features: int) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = encoder  # f
        self.projection = mlp(features, settings.hidden, settings.dim)  # g
        self.objective = CSimCLRLoss(
            settings.kappa_e, settings.kappa_b, settings.beta, settings.sample, settings.analytic
        )
        self.multiplier = residual_multiplier(settings.target_residual_bits)

    def forward(
        self, views: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        a, b = self.embed(torch.cat(list(views))).chunk(2)  # one pass: batch statistics are over both views
        loss, terms = self.objective(gather(a), gather(b), generator)
        if self.multiplier is not None:
            terms["beta"] = self.multiplier.hold(terms["residual_information_excess"])
        return loss, terms

    def before_step(self, progress: float) -> None:
        s = self.settings
        if self.multiplier is None:
            self.objective.beta = rising(progress, s.beta, s.beta_schedule, s.beta_warmup)
        else:
            self.objective.beta = self.multiplier.value()

    def embed(self, view: Tensor) -> Tensor:
        out: Tensor = self.projection(self.encoder(view))
        return out

    def channel(self, features: Tensor) -> VonMisesFisherChannel:
        """vMF(mu, kappa_e), whose mean direction is the projection."""
        return VonMisesFisherChannel(self._direction(features), self.settings.kappa_e)

    def residual_information(self, a: Tensor, b: Tensor) -> Tensor:
        s = self.settings
        e, backward = (von_mises_fisher(s.dim, kappa) for kappa in (s.kappa_e, s.kappa_b))
        return e.kl(self._direction(a), backward, self._direction(b)) - e.kl_floor(backward)

    def _direction(self, features: Tensor) -> Tensor:
        """[N, F] -> unit rows [N, D]."""
        with evaluating(self.projection):
            out = self.projection(features)
        with full_precision(out) as (out,):
            return unit(out)

"""StochCon (Ramapuram et al. 2021, "Stochastic Contrastive Learning"): SimCLR with a random code behind one branch.

The first view goes straight to the head, v = g(h). The second view's feature becomes a random code on the way,
v' = g(rho(z')), z' ~ q(z | pi(h')), with linear pi and rho and the *same* head g. Everything else is SimCLR: plain
InfoNCE between v and v', no prior, no stop-gradient, one sample. The code is D bits (Gumbel-Bernoulli, whose
temperature falls along a cosine) or a Gaussian with its mean from its own view and its noise from the opposing one. A
code of 2048 bits is 588 times smaller than an image of 224 x 224 bytes in three colours.

Not in the paper, hence ours:

* Equal-size views pass f together, as in SimCLR, but each branch passes g alone, with batch statistics of its own: what
  rho makes of a code differs from a feature in scale. With shared statistics the loss fell much more slowly (300 steps
  on scikit-learn's digits, one seed each: weak evidence). The running statistics are those of the branch without noise,
  which ``embed`` takes.
* The map to the scale (softplus + 1e-4); pi starts at five times the usual weights, so that logits differ between
  images about as much as the noise does (on the same digits 3 to 10 did alike, and 1 learned much more slowly).
* With small crops, the pairs are every view with every small crop (``stochastic`` says which of both is stochastic) and
  the first view with the second; each pair draws its own code.
* ``kl_weight`` and ``symmetric``. In evaluation mode no noise is drawn.

The paper takes the noise of the opposing view so that it does not collapse. On a toy of ours (20 clusters, an MLP) it
collapsed from either view: weak evidence, but nothing in the loss rewards noise. Watch ``signal_to_noise``; a
``kl_weight`` of 0.01 kept it near 4 there.

In plain PyTorch:

>>> from compressl.settings.methods import StochConSettings
>>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 32))
>>> method = StochCon(StochConSettings(hidden=64, dim=16, latent_dim=64), encoder, features=32)
>>> optimizer = torch.optim.SGD(method.parameters(), lr=0.05)
>>> for step in range(3):
...     method.before_step(step / 3)
...     image = torch.randn(8, 3, 8, 8)
...     loss, terms = method([image + 0.1 * torch.randn_like(image) for view in range(2)])
...     optimizer.zero_grad()
...     loss.backward()
...     optimizer.step()
>>> method.bits(image).shape  # bytes of each image
torch.Size([8, 8])
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from compressl.distributed import gather, local, world_size
from compressl.errors import UsageError
from compressl.measures.channels import BernoulliChannel, GaussianChannel
from compressl.methods.base import Method
from compressl.methods.multi_crop import encode
from compressl.models.heads import linear, mlp
from compressl.objectives import BernoulliLatent, GaussianLatent, StochConLoss
from compressl.objectives.latents import positive_scale
from compressl.settings.methods import StochConSettings


class StochCon(Method):
    """views -> f -> h; one: h -> g -> v; the other: h -> pi -> phi; z ~ q(z|phi) -> rho -> g -> v'; InfoNCE(v, v')."""

    def __init__(self, settings: StochConSettings, encoder: nn.Module, features: int) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = encoder  # f
        bernoulli, width = settings.latent == "bernoulli", settings.latent_dim
        self.latent = (
            BernoulliLatent(settings.latent_temperature_start, settings.hard, settings.prior)
            if bernoulli
            else GaussianLatent()
        )
        self.bottleneck: nn.Module = nn.Identity()  # pi
        self.upsampler: nn.Module = nn.Identity()  # rho
        if width:
            self.bottleneck = linear(features, width if bernoulli else 2 * width, bias=True)
            self.upsampler = linear(width, features)  # g's batch norm would take a bias away
            with torch.no_grad():
                self.bottleneck.weight *= 5.0
        self.projection = mlp(features, settings.hidden, settings.dim)  # g
        self.objective = StochConLoss(settings.temperature, self.latent, settings.kl_weight)

    def forward(
        self, views: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        h = encode(self.encoder, views).chunk(len(views))  # [N, F] of each view
        pairs = self.pairs(len(views))
        codes = [self.natural(h[stochastic], h[plain]) for plain, stochastic in pairs]  # phi' of each pair
        samples = [self.upsampler(self.sample(phi, generator)) for phi in codes]  # h'' = rho(z')     [N, F]
        used = sorted({plain for plain, _ in pairs})  # bottom: both views; top: the first view and the small crops
        v = dict(zip(used, self.projection(torch.cat([h[view] for view in used])).chunk(len(used)), strict=True))
        # the same weights on copies of the running statistics, which stay those of the branch without noise
        aside = {name: buffer.clone() for name, buffer in self.projection.named_buffers()}
        v_ = functional_call(self.projection, aside, (torch.cat(samples),)).chunk(len(samples))

        results = [
            self.objective(gather(v[plain]), gather(random), [gather(x) for x in phi])
            for (plain, _), random, phi in zip(pairs, v_, codes, strict=True)
        ]
        terms = {name: torch.stack([terms[name] for _, terms in results]).mean() for name in results[0][1]}
        return torch.stack([loss for loss, _ in results]).mean(), terms

    def pairs(self, views: int) -> list[tuple[int, int]]:
        """Which views are compared, as (deterministic, stochastic): two views, then small crops."""
        small = [(view, crop) for view in (0, 1) for crop in range(2, views)]
        if self.settings.stochastic == "top":
            small = [(crop, view) for view, crop in small]
        return [(0, 1), *([(1, 0)] if self.settings.symmetric else []), *small]

    def natural(self, own: Tensor, opposing: Tensor) -> tuple[Tensor, ...]:
        """phi' of a stochastic branch from its feature and that of the branch opposite: logits, or mean and scale."""
        if isinstance(self.latent, BernoulliLatent):
            return (self.bottleneck(own),)
        mean, raw = self.bottleneck(own).chunk(2, dim=1)
        if self.settings.variance == "opposing":
            _, raw = self.bottleneck(opposing).chunk(2, dim=1)
        return mean, positive_scale(raw)

    def sample(self, phi: Sequence[Tensor], generator: torch.Generator | None) -> Tensor:
        """z' ~ q(z|phi) in training, without noise otherwise; [N, D]."""
        if not self.training:
            return self.latent.mode(*phi)
        images, width = phi[0].shape
        # the noise of the global batch, of which this process takes its rows: alike on any number of processes
        noise = self.latent.noise(images * world_size(), width, generator=generator, device=phi[0].device)
        z: Tensor = self.latent(*phi, noise=local(noise))
        return z

    def encode(self, view: Tensor) -> Tensor:
        """The code of images without noise, [N, 3, H, W] -> [N, D]: zeros and ones, or the means of a Gaussian."""
        feature = self.encoder(view)
        return self.latent.mode(*self.natural(feature, feature))

    def bits(self, view: Tensor) -> Tensor:
        """The code of images as it is stored, uint8, [N, 3, H, W] -> [N, ceil(D / 8)].

        Raises:
            UsageError: for a Gaussian code, which is not made of bits.
        """
        if not isinstance(self.latent, BernoulliLatent):
            raise UsageError(
                "A Gaussian code is not made of bits.", "Take encode(view), or train with latent bernoulli."
            )
        return self.latent.bits(self.bottleneck(self.encoder(view)))

    def channel(self, features: Tensor) -> BernoulliChannel | GaussianChannel:
        """Bernoulli(sigmoid(alpha)), whatever the temperature; or N(mu, sigma^2) with the scale of the same image.

        Of soft bits it is the density of what they round to: they say more, but have no density of use.
        """
        phi = self.natural(features, features)
        return BernoulliChannel(*phi) if isinstance(self.latent, BernoulliLatent) else GaussianChannel(*phi)

    def embed(self, view: Tensor) -> Tensor:
        out: Tensor = self.projection(self.encoder(view))
        return out

    def before_step(self, progress: float) -> None:
        if isinstance(self.latent, BernoulliLatent):
            s = self.settings
            self.latent.temperature = temperature_at(progress, s.latent_temperature_start, s.latent_temperature_end)


def temperature_at(progress: float, start: float, end: float) -> float:
    """tau(t) = end + (start - end) (1 + cos(pi t / T)) / 2: along a cosine from ``start`` to ``end``.

    Source: Ramapuram et al. 2021, arXiv:2110.00552, section 4 (1.0 to 0.1).

    >>> [round(temperature_at(p, 1.0, 0.1), 6) for p in (0.0, 0.25, 0.5, 0.75, 1.0)]
    [1.0, 0.868198, 0.55, 0.231802, 0.1]
    """
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2

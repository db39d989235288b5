"""Densities e(z|x) of a random code Z given what it encodes, over a batch of their parameters.

A channel holds one density for each of N rows (images, or views of them). What :mod:`compressl.measures.information`
asks of it is a sample of each row's density and the log-density of any point under all of them. Everything is in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from compressl.errors import DataError, UsageError
from compressl.objectives.latents import BernoulliLatent, GaussianLatent
from compressl.objectives.von_mises_fisher import VonMisesFisher, von_mises_fisher

Rows: TypeAlias = Tensor | slice


class Channel(Protocol):
    """N densities e(z|x_n) over codes z of D dimensions."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, rows: Rows) -> Channel:
        """Those of some of the rows."""

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One z_n ~ e(.|x_n) for each row, [N, D]."""

    def log_density(self, z: Tensor) -> Tensor:
        """log e(z_m | x_n) in nats for all pairs, [M, D] -> [M, N]."""

    def log_density_own(self, z: Tensor) -> Tensor:
        """log e(z_n | x_n) in nats, [N, D] -> [N]."""

    def entropy(self) -> Tensor:
        """H(Z | x_n) in nats, [N]; a differential entropy where Z is continuous."""


@dataclass(frozen=True)
class VonMisesFisherChannel:
    """z ~ vMF(mu_n, kappa) on the unit sphere, one concentration for all rows; density with respect to surface area.

    Pairs are computed as log Ct - kappa (1 - mu^T z), whose rounding in float32 is about kappa * 1e-7 nats.

    Args:
        mean_direction: mu, unit rows [N, D], D >= 2.
        kappa: concentration; 0 is the uniform distribution, which says nothing about x.

    Raises:
        UsageError: a shape other than [N, D], D < 2, or a kappa that is negative or not finite.
        DataError: rows that are not finite or not of length 1.

    Source: the density is that of Lee et al. 2021, arXiv:2109.12909.

    >>> channel = VonMisesFisherChannel(torch.eye(3), kappa=10.0)
    >>> z = channel.sample(torch.Generator().manual_seed(0))
    >>> channel.log_density(z).shape, bool((channel.log_density(z).argmax(1) == torch.arange(3)).all())
    (torch.Size([3, 3]), True)
    """

    mean_direction: Tensor
    kappa: float

    def __post_init__(self) -> None:
        _check("mean directions", self.mean_direction)
        length = torch.linalg.vector_norm(self.mean_direction.detach(), dim=1)
        if bool(((length - 1).abs() > 1e-3).any()):
            raise DataError(
                "Some mean directions do not have length 1.", "Normalise them; a row of zeros has no direction."
            )
        _ = self.density  # refuses what cannot be

    @property
    def density(self) -> VonMisesFisher:
        """The distribution, whatever its mean direction."""
        return von_mises_fisher(self.mean_direction.shape[1], self.kappa)

    def __len__(self) -> int:
        return len(self.mean_direction)

    def __getitem__(self, rows: Rows) -> VonMisesFisherChannel:
        return VonMisesFisherChannel(self.mean_direction[rows], self.kappa)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.density.sample(self.mean_direction, generator)

    def log_density(self, z: Tensor) -> Tensor:
        cosine = z @ self.mean_direction.to(z).T  # mu_n^T z_m     [M, N]
        return cosine.sub_(1).mul_(self.kappa).add_(self.density.log_scaled_normalizer)

    def log_density_own(self, z: Tensor) -> Tensor:
        return self.density.log_prob(self.mean_direction, z)

    def entropy(self) -> Tensor:
        return self.mean_direction.new_full((len(self),), self.density.entropy)


@dataclass(frozen=True)
class GaussianChannel:
    """z ~ N(mu_n, diag(sigma_n^2)).

    Computed in float64, where the device has it: a channel with little noise has squares (mu / sigma)^2 that cancel.

    Args:
        mean: mu, [N, D].
        scale: sigma > 0, [N, D].

    Raises:
        UsageError: shapes other than [N, D], or two of them.
        DataError: numbers that are not finite, or a scale of 0 or less.

    >>> channel = GaussianChannel(torch.zeros(1, 2), torch.ones(1, 2))
    >>> channel.log_density(torch.tensor([[0.0, 0.0], [1.0, 0.0]])).flatten().tolist()
    [-1.8378770664093453, -2.3378770664093453]
    """

    mean: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        _check("means", self.mean)
        _check("scales", self.scale)
        if self.mean.shape != self.scale.shape:
            raise UsageError(
                f"The means are {list(self.mean.shape)}, the scales {list(self.scale.shape)}.",
                "Give one scale for each mean.",
            )
        if bool((self.scale <= 0).any()):
            raise DataError("Some scales are not above 0.", "Without noise a code has no density.")

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, rows: Rows) -> GaussianChannel:
        return GaussianChannel(self.mean[rows], self.scale[rows])

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        z: Tensor = GaussianLatent()(self.mean, self.scale, generator=generator)
        return z

    def log_density(self, z: Tensor) -> Tensor:
        z, (precision, weighted, offset) = _exact(z), self._expanded
        squares = z.square() @ precision.T - 2 * z @ weighted.T + offset  # sum ((z - mu) / sigma)^2     [M, N]
        return -squares.clamp_min_(0) / 2 + self._log_peak

    def log_density_own(self, z: Tensor) -> Tensor:
        z, mean, scale = (_exact(x) for x in (z, self.mean, self.scale))
        return -((z - mean) / scale).square().sum(1) / 2 + self._log_peak

    @cached_property
    def _expanded(self) -> tuple[Tensor, Tensor, Tensor]:
        """1 / sigma^2 [N, D], mu / sigma^2 [N, D] and sum mu^2 / sigma^2 [N]: pairs ask for them chunk by chunk."""
        mean, precision = _exact(self.mean), _exact(self.scale).square().reciprocal()
        return precision, mean * precision, (mean.square() * precision).sum(1)

    @cached_property
    def _log_peak(self) -> Tensor:
        """The log-density at the mean, [N]."""
        return -(_exact(self.scale).log() + 0.5 * math.log(2 * math.pi)).sum(1)

    def entropy(self) -> Tensor:
        return GaussianLatent().entropy(self.mean, _exact(self.scale))


@dataclass(frozen=True)
class BernoulliChannel:
    """z_d ~ Bernoulli(sigmoid(alpha_nd)), independent bits; the density is a probability.

    Args:
        logits: alpha, [N, D].

    Raises:
        UsageError: a shape other than [N, D].
        DataError: logits that are not finite.

    >>> channel = BernoulliChannel(torch.tensor([[0.0, 0.0], [50.0, -50.0]]))
    >>> channel.log_density(torch.tensor([[1.0, 0.0]])).exp()
    tensor([[0.2500, 1.0000]])
    """

    logits: Tensor

    def __post_init__(self) -> None:
        _check("logits", self.logits)

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, rows: Rows) -> BernoulliChannel:
        return BernoulliChannel(self.logits[rows])

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Bits as zeros and ones in float32."""
        z: Tensor = BernoulliLatent(hard=True)(self.logits.detach(), generator=generator)
        return z

    def log_density(self, z: Tensor) -> Tensor:
        return z @ self.logits.to(z).T + self._log_zeros.to(z)  # alpha^T z - sum log(1 + e^alpha)     [M, N]

    def log_density_own(self, z: Tensor) -> Tensor:
        return (z * self.logits).sum(1) + self._log_zeros

    @cached_property
    def _log_zeros(self) -> Tensor:
        """The log-probability of a code of zeros, [N]."""
        return -F.softplus(self.logits.to(torch.promote_types(self.logits.dtype, torch.float32))).sum(1)

    def entropy(self) -> Tensor:
        return BernoulliLatent().entropy(self.logits)


def _exact(x: Tensor) -> Tensor:
    """In float64, but for MPS, which has none."""
    return x.float() if x.device.type == "mps" else x.double()


def _check(name: str, parameters: Tensor) -> None:
    if parameters.ndim != 2 or not len(parameters):
        raise UsageError(f"The {name} have shape {list(parameters.shape)}.", "Give them as [rows, dimensions].")
    if not bool(torch.isfinite(parameters).all()):
        raise DataError(f"Some {name} are not finite.", "The network that gives them diverged; train again.")


def orthogonal_bits(dim: int, kappa: float) -> float:
    """The KL divergence of the vMF codes of directions at right angles, in bits: how sharp a stated channel is.

    KL(vMF(mu, kappa) || vMF(mu', kappa)) = kappa A_d(kappa) (1 - mu^T mu').

    >>> round(orthogonal_bits(512, concentration_for(512, 10.0)), 9)
    10.0
    """
    return kappa * von_mises_fisher(dim, kappa).mean_resultant_length / math.log(2)


def concentration_for(dim: int, bits: float) -> float:
    """The kappa at which :func:`orthogonal_bits` are so many: equally sharp in any dimension (ours).

    >>> [round(concentration_for(dim, 10.0), 1) for dim in (3, 128, 512)]
    [7.9, 30.6, 60.0]
    """
    nats = bits * math.log(2)
    low, high = 0.0, nats + math.sqrt(nats * dim) + dim  # above: A_d(kappa) >= kappa / (d + kappa)
    for _ in range(60):
        middle = (low + high) / 2
        if orthogonal_bits(dim, middle) < bits:
            low = middle
        else:
            high = middle
    return (low + high) / 2

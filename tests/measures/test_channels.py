"""Channels against densities of other hands, and bad parameters as sentences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from compressl.errors import DataError, UsageError
from compressl.measures.channels import BernoulliChannel, Channel, GaussianChannel, VonMisesFisherChannel

N = 5


def _noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _vmf(dim: int = 4, kappa: float = 20.0) -> VonMisesFisherChannel:
    return VonMisesFisherChannel(F.normalize(torch.randn(N, dim, generator=_noise()), dim=1), kappa)


def _gaussian() -> GaussianChannel:
    mean, scale = torch.randn(2, N, 3, generator=_noise()).unbind()
    return GaussianChannel(mean, scale.exp())


def _bernoulli() -> BernoulliChannel:
    return BernoulliChannel(2 * torch.randn(N, 6, generator=_noise()))


CHANNELS: list[Callable[[], Channel]] = [_vmf, _gaussian, _bernoulli]


@pytest.mark.parametrize("make", CHANNELS)
def test_pairs_hold_the_own_density_on_their_diagonal(make: Callable[[], Channel]) -> None:
    channel = make()
    z = channel.sample(_noise(1))
    pairs = channel.log_density(z)
    assert pairs.shape == (N, len(channel)) == (N, N)
    torch.testing.assert_close(pairs.diagonal(), channel.log_density_own(z), rtol=1e-5, atol=1e-5, check_dtype=False)
    assert torch.equal(z, channel.sample(_noise(1)))


@pytest.mark.parametrize("make", CHANNELS)
@pytest.mark.parametrize("rows", [slice(1, 4), torch.tensor([4, 0, 0])])
def test_rows(make: Callable[[], Channel], rows: slice | Tensor) -> None:
    channel = make()
    z = channel.sample(_noise(1))
    torch.testing.assert_close(channel[rows].log_density(z), channel.log_density(z)[:, rows])


@pytest.mark.parametrize("make", CHANNELS)
def test_the_entropy_is_minus_the_mean_log_density(make: Callable[[], Channel]) -> None:
    many = make()[torch.arange(N).repeat_interleave(20_000)]
    values = -many.log_density_own(many.sample(_noise(2))).double().view(N, -1)
    error = 4 * values.std(1) / values.shape[1] ** 0.5 + 1e-4
    assert bool(((values.mean(1) - make().entropy()).abs() < error).all())


@pytest.mark.parametrize("dim", [2, 3, 16])
def test_von_mises_fisher_density(dim: int) -> None:
    channel = _vmf(dim)
    z = channel.sample(_noise(1))
    means, points = (F.normalize(x.double(), dim=1).numpy() for x in (channel.mean_direction, z))  # SciPy is strict
    expected = np.stack([stats.vonmises_fisher(mu, 20.0).logpdf(points) for mu in means], 1)
    torch.testing.assert_close(channel.log_density(z).double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


def test_gaussian_and_bernoulli_density() -> None:
    gaussian = _gaussian()
    z = gaussian.sample(_noise(1))
    normal = torch.distributions.Normal(gaussian.mean, gaussian.scale)
    expected = normal.log_prob(z[:, None]).sum(2)
    torch.testing.assert_close(gaussian.log_density(z), expected.double(), rtol=1e-5, atol=1e-5)
    bernoulli = _bernoulli()
    bits = bernoulli.sample(_noise(1))
    expected = torch.distributions.Bernoulli(logits=bernoulli.logits).log_prob(bits[:, None]).sum(2)
    torch.testing.assert_close(bernoulli.log_density(bits), expected)
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 6)
    torch.testing.assert_close(bernoulli.log_density(every).exp().sum(0), torch.ones(N))


def test_a_gaussian_with_hardly_any_noise_keeps_its_digits() -> None:
    channel = GaussianChannel(torch.full((1, 64), 3.0), torch.full((1, 64), 1e-4))
    z = channel.sample(_noise())
    torch.testing.assert_close(channel.log_density(z)[0], channel.log_density_own(z), rtol=0, atol=1e-3)


def test_no_concentration_is_the_uniform_density() -> None:
    channel = _vmf(dim=3, kappa=0.0)
    torch.testing.assert_close(channel.log_density(channel.sample(_noise())).exp(), torch.full((N, N), 1 / 12.566371))


def test_parameters_that_cannot_be_are_sentences() -> None:
    with pytest.raises(DataError, match="length 1"):
        VonMisesFisherChannel(torch.zeros(2, 3), 1.0)
    with pytest.raises(DataError, match="mean directions are not finite"):
        VonMisesFisherChannel(torch.full((2, 3), torch.nan), 1.0)
    with pytest.raises(UsageError, match="kappa"):
        VonMisesFisherChannel(torch.eye(3), -1.0)
    with pytest.raises(UsageError, match="2 dimensions"):
        VonMisesFisherChannel(torch.ones(3, 1), 1.0)
    with pytest.raises(DataError, match="not above 0"):
        GaussianChannel(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(UsageError, match=r"scales \[2, 4\]"):
        GaussianChannel(torch.zeros(2, 3), torch.ones(2, 4))
    with pytest.raises(DataError, match="logits are not finite"):
        BernoulliChannel(torch.full((2, 3), torch.inf))
    with pytest.raises(UsageError, match="shape"):
        BernoulliChannel(torch.zeros(3))

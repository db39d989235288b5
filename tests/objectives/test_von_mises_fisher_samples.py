"""Samples of the distribution: their law against reference values and moments, their gradient, their noise."""

import math

import pytest
import torch

from compressl.objectives import VonMisesFisher
from compressl.objectives.common import unit

COSINE_VARIANCE = {
    (8, 1024): 3.3296991085713e-6,
    (256, 10): 0.003888595616156,
    (256, 1024): 0.00010666512217969,
    (256, 16384): 4.7130703429883e-7,
}
TANGENT_VARIANCE = {
    (8, 1024): 0.00097322871840519,
    (256, 10): 0.0039003534458181,
    (256, 1024): 0.00086245813197586,
    (256, 16384): 6.0562015447907e-5,
}
CDF = {
    (256, 1024): {0.86: 0.016236350694658, 0.88: 0.36984351311301, 0.89: 0.74098721831247, 0.90: 0.95414168479028},
    (256, 16384): {
        0.990: 0.0012163093349984,
        0.992: 0.34937960467797,
        0.993: 0.86500510990555,
        0.994: 0.99696706608248,
    },
    (256, 10): {-0.1: 0.013083162781921, 0.0: 0.26586289578378, 0.1: 0.8354970594546},
    (8, 1024): {0.99: 0.0045760437363066, 0.996: 0.31511757417109, 0.999: 0.9569922659523},
}


@pytest.mark.parametrize("key", CDF)
def test_table_meets_the_distribution(key):
    e = VonMisesFisher(*key)
    for w, probability in CDF[key].items():
        # P(w <= x) = P(angle >= arccos x)
        quantile = torch.tensor([1 - probability], dtype=torch.float64)
        step = 1e-5
        slope = (e.angle(quantile + step) - e.angle(quantile - step)) / (2 * step)
        miss = (e.angle(quantile) - math.acos(w)) / slope
        assert abs(miss.item()) < 2e-6, (w, miss)


@pytest.mark.parametrize("dim", [2, 3, 4, 8, 64, 256, 2048, 8192])
@pytest.mark.parametrize("kappa", [0.0, 0.001, 0.1, 1.0, 10.0, 100.0, 1024.0, 16384.0, 1e5, 1e8])
def test_every_corner_of_the_grid(dim, kappa):
    e = VonMisesFisher(dim, kappa)
    assert all(map(math.isfinite, (e.log_normalizer, e.log_scaled_normalizer, e.entropy, e.mean_resultant_length)))
    quantiles = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    angle = e.angle(quantiles)
    assert (angle.diff() >= 0).all()
    assert angle[0] >= 0
    assert angle[-1] <= math.pi
    assert (2 * (angle / 2).sin() ** 2).mean().item() == pytest.approx(e.mean_cosine_gap, rel=2e-4)
    axes = torch.eye(dim)[[0, 0, 1]] * torch.tensor([[1.0], [-1.0], [1.0]])
    mean = axes.requires_grad_()
    z = e.sample(mean, torch.Generator().manual_seed(0))
    z.square().sum().backward()
    assert torch.isfinite(mean.grad).all()
    torch.testing.assert_close(z.detach().norm(dim=1), torch.ones(3), rtol=0, atol=1e-5)
    if kappa > 1e4:
        assert ((z - mean).norm(dim=1) < 3 * math.sqrt(dim / kappa)).all()


def test_ends_of_the_uniform_are_ordinary_draws():
    e = VonMisesFisher(256, 1024.0)
    sd = math.sqrt(1 / (1024 * e.mean_resultant_length + 254 / (1 - e.mean_resultant_length**2)))
    ends = e.angle(torch.tensor([0.0, 1 - 2.0**-24]))
    assert ((ends - math.acos(e.mean_resultant_length)).abs() < 7 * sd).all()


@pytest.mark.parametrize(("dim", "kappa"), [(2, 0.3), (2, 50.0), (3, 2.0), (8, 1024.0), (256, 10.0), (256, 1024.0)])
def test_moments_of_samples(dim, kappa):
    e, count = VonMisesFisher(dim, kappa), 20_000
    generator = torch.Generator().manual_seed(11)
    mean = unit(torch.randn(dim, dtype=torch.float64, generator=generator))
    z = e.sample(mean.expand(count, dim), generator)
    w = z @ mean
    a = e.mean_resultant_length
    variance = e.mean_cosine_gap * (1 + a) - (dim - 1) * a / kappa
    assert (z.norm(dim=1) - 1).abs().max() < 1e-12
    assert abs(w.mean().item() - a) < 5 * math.sqrt(variance / count)
    assert w.var().item() == pytest.approx(variance, rel=0.08)
    axis = unit(torch.randn(dim, dtype=torch.float64, generator=generator))
    axis = unit(axis - (axis @ mean) * mean)
    side = z @ axis
    assert abs(side.mean().item()) < 5 * side.std().item() / math.sqrt(count)
    assert side.var().item() == pytest.approx(a / kappa, rel=0.08)  # Cov(z) = A / kappa on the tangent space
    correlation = torch.corrcoef(torch.stack([w, side]))[0, 1]
    assert abs(correlation.item()) < 5 / math.sqrt(count)


@pytest.mark.parametrize("key", COSINE_VARIANCE)
def test_variances_of_the_table(key):
    e = VonMisesFisher(*key)
    angle = e.angle((torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000)
    assert angle.cos().var().item() == pytest.approx(COSINE_VARIANCE[key], rel=2e-4)
    assert angle.sin().square().mean().item() / (e.dim - 1) == pytest.approx(TANGENT_VARIANCE[key], rel=2e-5)


def test_samples_rotate_with_the_mean():
    # with v = n(eps - (eps^T mu) mu), rotating mu and the noise together rotates z: compare moments of two directions
    e, count = VonMisesFisher(8, 20.0), 20_000
    for axis in (0, 5):
        mean = torch.eye(8, dtype=torch.float64)[axis]
        z = e.sample(mean.expand(count, 8), torch.Generator().manual_seed(3))
        others = torch.cat([z[:, :axis], z[:, axis + 1 :]], dim=1)
        expected = e.mean_resultant_length / 20 * torch.eye(7, dtype=torch.float64)
        torch.testing.assert_close(others.T.cov(), expected, rtol=0, atol=0.002)
        torch.testing.assert_close(z[:, axis].mean().item(), e.mean_resultant_length, rtol=0, atol=0.003)


def test_pathwise_gradient():
    e, count = VonMisesFisher(16, 64.0), 20_000
    generator = torch.Generator().manual_seed(2)
    mean = unit(torch.randn(16, dtype=torch.float64, generator=generator)).requires_grad_()
    a = torch.randn(16, dtype=torch.float64, generator=generator)
    rows = mean.expand(count, 16)
    z = e.sample(rows, generator)
    (gradient,) = torch.autograd.grad((z @ a).mean(), mean)
    project = torch.eye(16, dtype=torch.float64) - torch.outer(mean, mean).detach()
    # E[z] = A mu, so on the tangent space the mean gradient of a^T z is A a
    torch.testing.assert_close(project @ gradient, e.mean_resultant_length * project @ a, rtol=0, atol=0.02)
    (zero,) = torch.autograd.grad((e.sample(mean[None], generator) * mean).sum(), mean)
    assert (project @ zero).abs().max() < 1e-12  # the cosine to the mean does not move


def test_noise_depends_on_the_generator_alone():
    e, mean = VonMisesFisher(32, 100.0), unit(torch.ones(3, 32, dtype=torch.float64))
    double = e.sample(mean, torch.Generator().manual_seed(1))
    single = e.sample(mean.float(), torch.Generator().manual_seed(1))
    half = e.sample(mean.bfloat16(), torch.Generator().manual_seed(1))
    assert single.dtype == half.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-6)
    assert not torch.allclose(e.sample(mean, torch.Generator().manual_seed(2)), double)

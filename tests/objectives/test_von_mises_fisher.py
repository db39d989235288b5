"""The distribution against 45-digit reference values, its identities, an independent implementation, and statistics."""

import math

import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressl.errors import UsageError
from compressl.objectives import VonMisesFisher
from compressl.objectives.common import unit

DIMS = st.sampled_from([2, 3, 4, 5, 8, 31, 64, 100, 256, 513, 2048, 8192])
KAPPAS = st.floats(-1, 5).map(lambda exponent: 10.0**exponent)

LOG_UNIFORM = {
    2: -1.837877066409345,
    3: -2.531024246969291,
    8: -3.480307254729491,
    64: 40.76772002557456,
    128: 127.05345652436,
    256: 344.3348756540148,
    512: 867.9681031603943,
    2048: 4898.383862654105,
}
LOG_SCALED = {
    (128, 1024): 325.3814669821,
    (256, 10): 354.1397107151377,
    (256, 1024): 657.3024668946082,
    (256, 16384): 1003.430614277565,
    (256, 100000): 1233.649314958896,
    (512, 16384): 2011.794292784081,
    (2048, 100000): 9907.64466020634,
}
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


def test_reference_table(reference_table):
    rows = reference_table("von_mises_fisher.csv")
    assert len(rows) == 56
    for row in rows:
        e = VonMisesFisher(int(row["dim"]), row["kappa"])
        assert e.log_normalizer == pytest.approx(row["log_normalizer"], rel=4e-15, abs=5e-13), row
        assert e.mean_resultant_length == pytest.approx(row["mean_resultant_length"], rel=1e-15, abs=0), row
        assert e.mean_cosine_gap == pytest.approx(row["mean_cosine_gap"], rel=6e-12, abs=0), row  # 12 digits given
        assert e.entropy == pytest.approx(row["entropy"], rel=6e-15, abs=5e-13), row
        uniform = VonMisesFisher(e.dim, 0.0)
        assert e.kl_floor(uniform) == pytest.approx(row["kl_to_uniform"], rel=6e-13, abs=2e-12), row


def test_uniform_limit():
    for dim, value in LOG_UNIFORM.items():
        for kappa in (0.0, 1e-300, 1e-12 / dim):
            assert VonMisesFisher(dim, kappa).log_normalizer == pytest.approx(value, rel=1e-15, abs=2e-12)
        assert VonMisesFisher(dim, 0.0).mean_resultant_length == 0.0
        assert VonMisesFisher(dim, 0.0).entropy == pytest.approx(-value, rel=1e-15, abs=2e-12)


@pytest.mark.parametrize("key", LOG_SCALED)
def test_scaled_normalizer(key):
    assert VonMisesFisher(*key).log_scaled_normalizer == pytest.approx(LOG_SCALED[key], rel=1e-15, abs=5e-12)


@given(kappa=KAPPAS)
@settings(max_examples=30, deadline=None)
def test_closed_forms_in_two_and_three_dimensions(kappa):
    two, three = VonMisesFisher(2, kappa), VonMisesFisher(3, kappa)
    assert two.log_scaled_normalizer == pytest.approx(
        -math.log(2 * math.pi) - math.log(scipy.special.i0e(kappa)), abs=5e-12
    )
    assert two.mean_resultant_length == pytest.approx(scipy.special.i1e(kappa) / scipy.special.i0e(kappa), rel=1e-14)
    log_c3 = math.log(kappa / (2 * math.pi)) - math.log1p(-math.exp(-2 * kappa))
    assert three.log_scaled_normalizer == pytest.approx(log_c3, abs=5e-12)
    assert three.mean_resultant_length == pytest.approx(1 / math.tanh(kappa) - 1 / kappa, rel=1e-12)


@pytest.mark.parametrize(("dim", "kappa"), [(5, 3.0), (17, 40.0), (63, 900.0), (65, 77.0), (130, 5000.0), (401, 800.0)])
def test_scipy_agrees_where_it_does_not_underflow(dim, kappa):
    e, mean = VonMisesFisher(dim, kappa), torch.eye(dim, dtype=torch.float64)[0]
    z = unit(torch.randn(4, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 5 * mean)
    oracle = scipy.stats.vonmises_fisher(mean.numpy(), kappa)
    torch.testing.assert_close(e.log_prob(mean, z), torch.from_numpy(oracle.logpdf(z.numpy())), rtol=1e-11, atol=1e-10)
    assert e.entropy == pytest.approx(float(oracle.entropy()), rel=1e-11)


@given(dim=DIMS, kappa=KAPPAS)
@settings(max_examples=40, deadline=None)
def test_bounds_and_recurrence(dim, kappa):
    e, nu = VonMisesFisher(dim, kappa), dim / 2 - 1
    a = e.mean_resultant_length
    slack = 1 + 1e-14  # the bounds of Amos meet A in the last digit
    assert a * slack >= kappa / (nu + 0.5 + math.hypot(kappa, nu + 1.5))
    assert a <= slack * kappa / (nu + 0.5 + math.hypot(kappa, nu + 0.5))
    assert 0 < a < 1
    assert e.mean_cosine_gap == pytest.approx(1 - a, abs=4e-16)
    assert VonMisesFisher(dim, 1.01 * kappa).mean_resultant_length > a
    assert 1 / a == pytest.approx(dim / kappa + VonMisesFisher(dim + 2, kappa).mean_resultant_length, rel=1e-14)


@given(dim=DIMS, kappa=KAPPAS)
@settings(max_examples=40, deadline=None)
def test_derivatives(dim, kappa):
    h = 1e-4 * kappa
    low, e, high = (VonMisesFisher(dim, k) for k in (kappa - h, kappa, kappa + h))
    # d log Ct = 1 - A; central differences of numbers near 1e4 keep about 8 digits of it
    slope = (high.log_scaled_normalizer - low.log_scaled_normalizer) / (2 * h)
    noise = 4e-12 * max(1, abs(e.log_scaled_normalizer) / 100) / h
    assert slope == pytest.approx(e.mean_cosine_gap, rel=1e-6, abs=noise)
    change = (high.mean_resultant_length - low.mean_resultant_length) / (2 * h)
    a, gap = e.mean_resultant_length, e.mean_cosine_gap
    variance = gap * (1 + a) - (dim - 1) * a / kappa
    assert change == pytest.approx(variance, rel=1e-6, abs=4e-15 / h + 4e-15 * max(1, dim / kappa))


def test_kl_reference_table(reference_table):
    rows = reference_table("kl.csv")
    assert len(rows) == 24
    for row in rows:
        e, b = (VonMisesFisher(int(row["dim"]), row[k]) for k in ("kappa_e", "kappa_b"))
        axes = torch.eye(e.dim, dtype=torch.float64)
        for cosine in ("1", "0.9", "0.5", "0", "-1"):
            c = float(cosine)
            other = c * axes[0] + math.sqrt(1 - c * c) * axes[1]
            assert e.kl(axes[0], b, other).item() == pytest.approx(row[cosine], rel=2e-14, abs=1e-12), (row, cosine)


@given(dim=DIMS, kappa_e=KAPPAS, kappa_b=KAPPAS, seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_kl_is_a_divergence(dim, kappa_e, kappa_b, seed):
    e, b = VonMisesFisher(dim, kappa_e), VonMisesFisher(dim, kappa_b)
    draw = torch.randn(2, 3, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    mean, other = unit(draw)
    assert (e.kl(mean, b, other) >= -1e-11).all()
    assert torch.equal(e.kl(mean, e, mean), torch.zeros(3, dtype=torch.float64))
    expected = kappa_e * e.mean_resultant_length * (1 - (mean * other).sum(-1))
    torch.testing.assert_close(e.kl(mean, e, other), expected, rtol=1e-10, atol=1e-10)
    assert (e.kl(mean, e, other) > 0).all()


@pytest.mark.parametrize(("dim", "kappa_e", "kappa_b"), [(8, 100.0, 10.0), (256, 1024.0, 10.0)])
def test_kl_is_the_mean_log_ratio(dim, kappa_e, kappa_b):
    e, b = VonMisesFisher(dim, kappa_e), VonMisesFisher(dim, kappa_b)
    generator = torch.Generator().manual_seed(5)
    mean, other = unit(torch.randn(2, dim, dtype=torch.float64, generator=generator))
    z = e.sample(mean.expand(20_000, dim), generator)
    ratio = e.log_prob(mean, z) - b.log_prob(other, z)
    assert (ratio.mean() - e.kl(mean, b, other)).abs() < 5 * ratio.std() / math.sqrt(len(z))


def test_log_prob_integrates_to_one_on_the_circle():
    theta = torch.arange(4096, dtype=torch.float64) * (2 * math.pi / 4096)
    z = torch.stack([theta.cos(), theta.sin()], dim=1)
    for kappa in (0.0, 0.5, 300.0):
        density = VonMisesFisher(2, kappa).log_prob(z[7], z).exp()
        assert density.sum().item() * 2 * math.pi / 4096 == pytest.approx(1, rel=1e-12)


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


@pytest.mark.parametrize(
    ("dim", "kappa", "word"), [(1, 1.0, "dim"), (8, -1.0, "kappa"), (8, math.nan, "kappa"), (8, math.inf, "kappa")]
)
def test_refusals(dim, kappa, word):
    with pytest.raises(UsageError, match=word):
        VonMisesFisher(dim, kappa)


def test_refuses_spheres_of_different_dimensions():
    with pytest.raises(UsageError, match="dimensions"):
        VonMisesFisher(8, 1.0).kl_floor(VonMisesFisher(9, 1.0))

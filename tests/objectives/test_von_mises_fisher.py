"""The distribution against 45-digit reference values, its identities and an independent implementation."""

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
from compressl.objectives.von_mises_fisher import mean_resultant_length

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


def test_many_concentrations_at_once(reference_table):
    rows = reference_table("von_mises_fisher.csv")
    for dim in {int(row["dim"]) for row in rows}:
        here = [row for row in rows if int(row["dim"]) == dim]
        kappa = torch.tensor([row["kappa"] for row in here], dtype=torch.float64)
        expected = torch.tensor([row["mean_resultant_length"] for row in here], dtype=torch.float64)
        torch.testing.assert_close(mean_resultant_length(kappa, dim), expected, rtol=1e-14, atol=0)
    assert mean_resultant_length(torch.zeros(2), 3).tolist() == [0.0, 0.0]


def test_uniform_limit():
    for dim, value in LOG_UNIFORM.items():
        for kappa in (0.0, 1e-300, 1e-12 / dim):
            assert VonMisesFisher(dim, kappa).log_normalizer == pytest.approx(value, rel=1e-15, abs=2e-12)
        assert VonMisesFisher(dim, 0.0).mean_resultant_length == 0.0
        assert VonMisesFisher(dim, 0.0).entropy == pytest.approx(-value, rel=1e-15, abs=2e-12)


@pytest.mark.parametrize(
    ("dim", "kappa", "mean_cosine", "log_normalizer", "entropy", "to_uniform"),
    [
        (3, 1, 0.31303528549933124, -2.6924636085404874, 2.3794283230411564, 0.1515959239281348),
        (3, 2, 0.5373147207275479, -3.1262444390235142, 2.0516149975684184, 0.4794092494008728),
        (3, 10, 0.9000000041223073, -9.535291971354148, 0.5352919301310752, 1.995732316838216),
        (8, 4, 0.42438078291628767, -4.397780021251456, 2.700256889586305, 0.780050365143186),
        (64, 50, 0.5493944888798393, 24.74838022656524, -52.21810467055721, 11.450384644982655),
        (128, 32, 0.23624043699266725, 123.16757511979681, -130.72726910356215, 3.673812579202192),
        (128, 256, 0.781899379959488, -12.85863341293259, -187.30760785669634, 60.25415133233638),
    ],
)
def test_reference_between_the_rows_of_the_table(dim, kappa, mean_cosine, log_normalizer, entropy, to_uniform):
    e = VonMisesFisher(dim, kappa)
    assert e.mean_resultant_length == pytest.approx(mean_cosine, rel=5e-15)
    assert e.log_normalizer == pytest.approx(log_normalizer, rel=2e-14)
    assert e.entropy == pytest.approx(entropy, rel=2e-14)
    assert e.kl_floor(VonMisesFisher(dim, 0.0)) == pytest.approx(to_uniform, rel=2e-13)


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


@pytest.mark.parametrize(
    ("kappa", "cosine", "mean", "largest"),
    [(1024, 0.9, 90.4352898194721, 457.946721791957), (16384, 0.99, 162.56992233038, 2317.04750059208)],
)
def test_how_far_two_laws_of_one_concentration_are_apart(kappa, cosine, mean, largest):
    """log f / f' on average, which is the divergence, and at most: kappa ||mu - mu'||, in the direction of mu - mu'."""
    e, axes = VonMisesFisher(256, kappa), torch.eye(256, dtype=torch.float64)
    mu, other = axes[0], cosine * axes[0] + math.sqrt(1 - cosine**2) * axes[1]
    assert e.kl(mu, e, other).item() == pytest.approx(mean, rel=1e-12)
    z = unit(mu - other)
    assert (e.log_prob(mu, z) - e.log_prob(other, z)).item() == pytest.approx(largest, rel=1e-12)


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


@pytest.mark.parametrize(
    ("dim", "kappa", "word"), [(1, 1.0, "dim"), (8, -1.0, "kappa"), (8, math.nan, "kappa"), (8, math.inf, "kappa")]
)
def test_refusals(dim, kappa, word):
    with pytest.raises(UsageError, match=word):
        VonMisesFisher(dim, kappa)


def test_refuses_spheres_of_different_dimensions():
    with pytest.raises(UsageError, match="dimensions"):
        VonMisesFisher(8, 1.0).kl_floor(VonMisesFisher(9, 1.0))

"""Draws of bits and Gaussians against reference values, closed forms and moments."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressl.errors import UsageError
from compressl.objectives import BernoulliLatent, GaussianLatent

SEEDS = st.integers(0, 999)
ALPHA = torch.tensor([[-2.0, -0.5, 0.0, 0.3, 1.7]], dtype=torch.float64)
U = torch.tensor([[0.1, 0.35, 0.5, 0.8, 0.95]], dtype=torch.float64)
HARD = [0.0, 0.0, 1.0, 1.0, 1.0]
RELAXED = {  # temperature: z, dz/dalpha
    1.0: (
        [0.014814484531, 0.246189544013, 0.5, 0.84373621046, 0.990476644009],
        [0.014595015579, 0.185580252432, 0.25, 0.131845417618, 0.009432661681],
    ),
    0.5: (
        [2.260678803836e-4, 0.09638276865612, 0.5, 0.9668367948006, 0.9999075618144],
        [4.520335473941e-4, 0.1741862611246, 0.5, 0.06412681404061, 1.848592815315e-4],
    ),
    0.1: (
        [5.911330857874e-19, 1.380601915593e-5, 0.5, 0.9999999525194, 1.0],
        [5.911330857874e-18, 1.380582854976e-4, 2.5, 4.748064382710e-7, 0.0],
    ),
}


def draw(seed, images=64, dim=16):
    return torch.randn(images, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", RELAXED)
def test_relaxed_bits_have_the_reference_values(temperature):
    alpha = ALPHA.clone().requires_grad_()
    z = BernoulliLatent(temperature)(alpha, U)
    (gradient,) = torch.autograd.grad(z.sum(), alpha)
    expected, slope = RELAXED[temperature]
    assert z[0].tolist() == pytest.approx(expected, rel=1e-9)
    assert gradient[0].tolist() == pytest.approx(slope, rel=1e-9, abs=1e-17)


@pytest.mark.parametrize("temperature", RELAXED)
def test_hard_bits_pass_the_gradient_of_the_relaxed_ones(temperature):
    soft, hard = (ALPHA.clone().requires_grad_() for _ in range(2))
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)
    z = BernoulliLatent(temperature, hard=True)(hard, U)
    assert z[0].tolist() == HARD
    relaxed = BernoulliLatent(temperature)(soft, U)
    assert not set(relaxed[0].tolist()) <= {0.0, 1.0}
    assert torch.equal(
        torch.autograd.grad(z @ weights, hard)[0],
        torch.autograd.grad(relaxed @ weights, soft)[0],
    )


def test_wrong_relaxations_are_told_apart():
    noise, z = U.log() - torch.log1p(-U), BernoulliLatent(0.5)(ALPHA, U)
    gumbel = -(-U.log()).log()  # one Gumbel variable where the logistic one is a difference of two
    for wrong in ((ALPHA + gumbel) / 0.5, ALPHA / 0.5 + noise, (ALPHA - noise) / 0.5, (ALPHA + noise) * 0.5):
        assert (wrong.sigmoid() - z).abs().max() > 0.05
    straight = BernoulliLatent(0.5, hard=True)(ALPHA, U)
    assert (z.round() - straight).abs().max() == 1  # the half itself is a one; round goes to even


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_a_hard_bit_is_the_same_at_any_temperature(seed):
    alpha = draw(seed)
    u = torch.rand(alpha.shape, generator=torch.Generator().manual_seed(seed))
    samples = [BernoulliLatent(t, hard=True)(alpha, u) for t in (1e-3, 0.1, 1.0, 30.0)]
    assert all(torch.equal(z, samples[0]) for z in samples)
    assert torch.equal(samples[0], (BernoulliLatent(1.0)(alpha, u) >= 0.5).double())
    assert torch.equal(samples[0], (u > (-alpha).sigmoid()).double())  # exactly Bernoulli(sigmoid(alpha))


MOMENTS = [  # alpha, temperature, P(z > 1/2), E z, Var z, E dz/dalpha, d sigmoid/dalpha
    (0.0, 1.0, 0.5, 0.5, 0.083333333333, 0.166666666667, 0.25),
    (0.0, 0.5, 0.5, 0.5, 0.142699081699, 0.214601836603, 0.25),
    (0.0, 0.1, 0.5, 0.5, 0.225201077081, 0.247989229190, 0.25),
    (1.0, 1.0, 0.731058578630, 0.661303112662, 0.073033727136, 0.150947578709, 0.196611933241),
    (1.0, 0.5, 0.731058578630, 0.703147570671, 0.117937385309, 0.181587358443, 0.196611933241),
    (1.0, 0.1, 0.731058578630, 0.729586875977, 0.177687645831, 0.196022205482, 0.196611933241),
    (-2.0, 1.0, 0.119202922022, 0.205513187733, 0.049949093021, 0.113328424380, 0.104993585404),
    (-2.0, 0.5, 0.119202922022, 0.148586344130, 0.069661189919, 0.113694505099, 0.104993585404),
    (-2.0, 0.1, 0.119202922022, 0.120514116688, 0.095428830375, 0.105616339923, 0.104993585404),
]


@pytest.mark.parametrize(("alpha", "temperature", "above", "mean", "variance", "slope", "true"), MOMENTS)
def test_moments_of_the_relaxation(alpha, temperature, above, mean, variance, slope, true):
    draws = 200_000
    logits = torch.full((draws, 1), alpha, dtype=torch.float64, requires_grad=True)
    z = BernoulliLatent(temperature)(logits, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(z.sum(), logits)

    def close(values, expected):  # within five standard errors of the mean
        assert abs(values.mean().item() - expected) < 5 * values.std().item() / math.sqrt(draws) + 1e-12

    close((z.detach() > 0.5).double(), above)
    close(z.detach(), mean)
    close((z.detach() - mean).square(), variance)
    close(gradient, slope)
    p = torch.sigmoid(torch.tensor(alpha, dtype=torch.float64))
    assert (p * (1 - p)).item() == pytest.approx(true, rel=1e-10)
    assert gradient.max() <= 1 / (4 * temperature) + 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("hard", [False, True])
def test_the_ends_of_the_noise_are_finite(dtype, hard):
    alpha = torch.tensor([[-30.0, 0.0, 0.0, 30.0, 0.5]]).to(dtype).requires_grad_()
    u = torch.tensor([[1.0, 0.0, 1.0, 0.0, 0.5]]).to(dtype)
    for temperature in (1.0, 0.1, 1e-3):
        z = BernoulliLatent(temperature, hard=hard)(alpha, u)
        (gradient,) = torch.autograd.grad(z.sum(), alpha)
        assert torch.isfinite(z).all()
        assert torch.isfinite(gradient).all()
        assert z.min() >= 0
        assert z.max() <= 1
    assert BernoulliLatent(hard=True)(alpha, u)[0].tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]
    # log u - log1p(-u) at the clamps
    edge = BernoulliLatent()(torch.zeros(1, 1, dtype=dtype), torch.zeros(1, 1, dtype=dtype)).item()
    assert edge == pytest.approx(1e-7, rel=1e-3)


def test_noise_is_drawn_in_float32_and_follows_the_generator():
    alpha = draw(0)

    def sample(latent, *phi, seed=1):
        return latent(*phi, generator=torch.Generator().manual_seed(seed))

    for latent, phi in ((BernoulliLatent(), (alpha,)), (GaussianLatent(), (alpha, alpha.exp()))):
        exact = sample(latent, *phi)
        assert exact.dtype == torch.float64
        assert torch.equal(sample(latent, *phi), exact)
        assert not torch.equal(sample(latent, *phi, seed=2), exact)
        low = tuple(x.bfloat16() for x in phi)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = sample(latent, *low)
        assert mixed.dtype == torch.float32
        rounded = sample(latent, *(x.double() for x in low))  # the same draw: only the parameters were rounded
        torch.testing.assert_close(mixed.double(), rounded, rtol=1e-3, atol=1e-5)
        assert latent.noise(2, 3, generator=torch.Generator().manual_seed(1)).dtype == torch.float32


def test_a_gaussian_sample_and_its_gradients():
    mean, scale, eps = draw(1).requires_grad_(), draw(2).exp().requires_grad_(), draw(3)
    z = GaussianLatent()(mean, scale, eps)
    torch.testing.assert_close(z, mean + scale * eps, rtol=0, atol=0)
    wrt_mean, wrt_scale = torch.autograd.grad(z.sum(), (mean, scale))
    assert torch.equal(wrt_mean, torch.ones_like(mean))
    assert torch.equal(wrt_scale, eps)
    many = GaussianLatent()(torch.full((100_000, 1), 2.0), torch.full((100_000, 1), 0.5))
    assert abs(many.mean() - 2) < 5 * 0.5 / math.sqrt(100_000)
    assert abs(many.std() - 0.5) < 5 * 0.5 / math.sqrt(200_000)
    assert GaussianLatent().mode(mean, scale) is mean


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: BernoulliLatent(0.0), "temperature"),
        (lambda: BernoulliLatent(math.nan), "temperature"),
        (lambda: BernoulliLatent(prior=0.0), "prior"),
        (lambda: BernoulliLatent(prior=1.0), "prior"),
        (lambda: BernoulliLatent()(torch.ones(4)), "logits"),
        (lambda: BernoulliLatent()(torch.ones(4, 2), torch.ones(4, 1)), "noise"),
        (lambda: GaussianLatent()(torch.ones(4, 2), torch.ones(4, 1)), "scale"),
        (lambda: GaussianLatent()(torch.ones(4, 2), torch.ones(4, 2), torch.ones(2, 2)), "noise"),
    ],
)
def test_refusals_name_what_is_wrong(build, word):
    with pytest.raises(UsageError, match=word) as refusal:
        build()
    assert refusal.value.next_step

"""What a random code costs: divergences and entropies against reference values, and the noise of Gaussians."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressl.objectives import BernoulliLatent, GaussianLatent
from compressl.objectives.latents import (
    positive_scale,
    signal_to_noise,
)

SEEDS = st.integers(0, 999)


def draw(seed, images=64, dim=16):
    return torch.randn(images, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("logit", "against_half", "against_tenth"),
    [
        (0.0, 0.0, 0.5108256237659907),
        (1.0, 0.11094407167172735, 1.1294572832079381),
        (-2.0, 0.32781332547273767, 0.001942250527908234),
        (4.0, 0.6030524127937693, 2.172970582646033),
        (10.0, 0.6926478029737044, 2.301985966094933),
    ],
)
def test_divergence_of_bits(logit, against_half, against_tenth):
    alpha = torch.full((2, 3), logit, dtype=torch.float64)
    for prior, expected in ((0.5, against_half), (0.1, against_tenth)):
        divergence = BernoulliLatent(prior=prior).divergence(alpha)
        assert divergence.tolist() == pytest.approx([3 * expected] * 2, rel=1e-12, abs=1e-14)
    if logit:
        q = alpha.sigmoid()[0, 0]
        reverse = 0.1 * (0.1 / q).log() + 0.9 * (0.9 / (1 - q)).log()
        assert abs(reverse.item() - against_tenth) > 1e-5
        mirrored = BernoulliLatent(prior=0.9).divergence(alpha)[0].item() / 3  # p and 1 - p swapped
        assert abs(mirrored - against_tenth) > 1e-3
        assert abs(against_half / math.log(2) - against_half) > 1e-2  # bits are not nats


GAUSS = [  # mean, scale, prior's mean, prior's scale, KL
    (1.0, 1.0, 0.0, 1.0, 0.5),
    (0.5, 0.8, 0.0, 1.0, 0.16814355131420977),
    (-2.0, 0.1, 0.0, 1.0, 3.8075850929940454),
    (0.3, 2.5, 0.0, 1.0, 1.7537092681258448),
    (0.5, 0.8, -0.2, 1.5, 0.37971977053348516),
]


@pytest.mark.parametrize(("m1", "s1", "m2", "s2", "expected"), GAUSS)
def test_divergence_of_gaussians(m1, s1, m2, s2, expected):
    # a divergence does not change when the axis is shifted and scaled: any Gaussian prior becomes N(0, 1)
    mean, scale = (torch.full((2, 3), x, dtype=torch.float64) for x in ((m1 - m2) / s2, s1 / s2))
    assert GaussianLatent().divergence(mean, scale).tolist() == pytest.approx([3 * expected] * 2, rel=1e-12)
    if (m1, s1) != (1.0, 1.0):  # sigma read as a variance
        assert abs(GaussianLatent().divergence(mean, scale.sqrt())[0].item() / 3 - expected) > 1e-2
    reference = torch.distributions.Normal(mean, scale)
    entropy = GaussianLatent().entropy(mean, scale)
    torch.testing.assert_close(entropy, reference.entropy().sum(1), rtol=1e-12, atol=1e-12)


@given(seed=SEEDS, prior=st.sampled_from([0.05, 0.5, 0.9]))
@settings(max_examples=15, deadline=None)
def test_divergence_is_cross_entropy_less_entropy(seed, prior):
    alpha, latent = 3 * draw(seed), BernoulliLatent(prior=prior)
    bits = torch.distributions.Bernoulli(logits=alpha)
    torch.testing.assert_close(latent.entropy(alpha), bits.entropy().sum(1), rtol=1e-10, atol=1e-12)
    p0 = torch.distributions.Bernoulli(torch.tensor(prior, dtype=torch.float64))
    reference = torch.distributions.kl_divergence(bits, p0)
    torch.testing.assert_close(latent.divergence(alpha), reference.sum(1), rtol=1e-7, atol=1e-9)
    half = BernoulliLatent().divergence(alpha)
    torch.testing.assert_close(half, 16 * math.log(2) - latent.entropy(alpha), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(BernoulliLatent().divergence(-alpha), half, rtol=1e-12, atol=1e-12)


def test_divergence_bounds_the_information_of_hard_bits():
    """Two images, one bit: I(x;z) counted out, at most the mean divergence from any prior, equal at the marginal."""
    alpha = torch.tensor([[2.0], [-1.0]], dtype=torch.float64)
    q = alpha.sigmoid()
    marginal = q.mean().item()
    information = torch.distributions.Bernoulli(q.mean()).entropy() - BernoulliLatent().entropy(alpha).mean()
    assert BernoulliLatent(prior=marginal).divergence(alpha).mean().item() == pytest.approx(information.item())
    for prior in (0.2, 0.5, 0.9):
        assert BernoulliLatent(prior=prior).divergence(alpha).mean() > information


def test_extreme_parameters_stay_finite():
    alpha = torch.tensor([[-1e4, -100.0, 0.0, 100.0, 1e4]], requires_grad=True)
    for value in (BernoulliLatent(prior=0.1).divergence(alpha), BernoulliLatent().entropy(alpha)):
        (gradient,) = torch.autograd.grad(value.sum(), alpha)
        assert torch.isfinite(value).all()
        assert torch.isfinite(gradient).all()
    assert BernoulliLatent().entropy(alpha.double())[0].item() == pytest.approx(math.log(2), rel=1e-12)
    raw = torch.tensor([[-1e4, 0.0, 1e4]], requires_grad=True)
    divergence = GaussianLatent().divergence(raw, positive_scale(raw))
    assert torch.isfinite(divergence).all()
    assert torch.isfinite(torch.autograd.grad(divergence.sum(), raw)[0]).all()
    assert positive_scale(torch.tensor(-1e4)) == pytest.approx(1e-4)


@given(seed=SEEDS, factor=st.sampled_from([1e-3, 0.5, 20.0]))
@settings(max_examples=15, deadline=None)
def test_signal_to_noise_does_not_see_the_unit(seed, factor):
    mean, scale = draw(seed), draw(seed + 1).exp()
    value = signal_to_noise(mean, scale)
    torch.testing.assert_close(signal_to_noise(factor * mean, factor * scale), value, rtol=1e-10, atol=0)
    torch.testing.assert_close(signal_to_noise(mean + 5, scale), value, rtol=1e-10, atol=0)
    torch.testing.assert_close(signal_to_noise(mean, 2 * scale), value / 4, rtol=1e-10, atol=0)
    expected = np.var(mean.numpy(), axis=0).sum() / np.mean(scale.numpy() ** 2, axis=0).sum()
    assert value.item() == pytest.approx(expected, rel=1e-10)
    assert signal_to_noise(mean[:1], scale[:1]) == 0


def test_terms_are_detached_scalars():
    alpha = draw(0).requires_grad_()
    bits, gauss = BernoulliLatent(prior=0.2), GaussianLatent()
    terms = bits.terms(alpha)
    assert set(terms) == {"latent_divergence", "latent_entropy", "active_bits", "code_bits"}
    assert terms["latent_divergence"].item() == pytest.approx(bits.divergence(alpha).mean().item())
    assert terms["active_bits"].item() == pytest.approx((alpha >= 0).double().sum(1).mean().item())
    gaussian = gauss.terms(alpha, alpha.exp())
    assert set(gaussian) == {"latent_divergence", "latent_entropy", "signal_to_noise"}
    for value in (terms | gaussian).values():
        assert value.ndim == 0
        assert not value.requires_grad

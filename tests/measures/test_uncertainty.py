"""Uncertainty scores: known values, what draws of known distributions give, and what should not matter."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressl.errors import DataError
from compressl.measures import uncertainty
from compressl.measures.channels import BernoulliChannel, VonMisesFisherChannel
from compressl.objectives.von_mises_fisher import VonMisesFisher, mean_resultant_length
from compressl.randomness import generator


def test_probabilities_at_their_ends() -> None:
    sure, lost = torch.tensor([[80.0, 0.0, 0.0]]), torch.zeros(1, 3)
    assert uncertainty.predictive_entropy(lost).item() == pytest.approx(math.log2(3))
    assert 0 < uncertainty.predictive_entropy(sure).item() < 1e-30, "scores of sure images must still differ"
    assert uncertainty.least_confidence(sure).item() == pytest.approx(2 * math.exp(-80), rel=1e-4)
    assert uncertainty.least_confidence(lost).item() == pytest.approx(2 / 3)
    assert uncertainty.predictive_entropy(torch.tensor([[2000.0, 0.0]])).item() == 0


@settings(max_examples=40)
@given(st.lists(st.floats(-20, 20), min_size=3, max_size=3), st.floats(-5, 5))
def test_scores_of_probabilities_ignore_a_constant_and_the_order_of_classes(row: list[float], shift: float) -> None:
    logits = torch.tensor([row])
    for score in (uncertainty.predictive_entropy, uncertainty.least_confidence):
        torch.testing.assert_close(score(logits + shift), score(logits), rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(score(logits.flip(1)), score(logits), rtol=1e-4, atol=1e-7)


@settings(max_examples=40)
@given(st.integers(2, 2048), st.floats(-3, 5))
def test_concentration_inverts_the_mean_resultant_length(dim: int, exponent: float) -> None:
    kappa = torch.tensor([10.0**exponent], dtype=torch.float64)
    r = mean_resultant_length(kappa, dim)
    if 2e-7 < r.item() < 1 - 2e-7:
        assert uncertainty.concentration(r, dim).item() == pytest.approx(kappa.item(), rel=1e-6)
        approximate = uncertainty.approximate_concentration(r, dim).item()
        assert approximate == pytest.approx(kappa.item(), rel=0.25)  # worst in the plane


@pytest.mark.parametrize("dim", [2, 3, 512])
def test_concentration_is_finite_at_its_ends_and_rises(dim: int) -> None:
    r = torch.tensor([0.0, 1e-6, 0.01, 0.5, 0.99, 1 - 1e-6, 1.0], dtype=torch.float64)
    kappa = uncertainty.concentration(r, dim)
    assert bool(torch.isfinite(kappa).all())
    assert bool((kappa.diff() > 0).all())
    assert kappa[0] >= 0


def test_concentration_of_drawn_views() -> None:
    """512 views of each of 8 images, drawn at kappa = 60: 1 - R has the bias and kappa the value that are stated."""
    channel = VonMisesFisherChannel(torch.eye(16)[:8].repeat_interleave(512, 0), kappa=60.0)
    views = channel.sample(generator("views")).view(8, 512, 16)
    r = 1 - uncertainty.dispersion(views)
    assert uncertainty.concentration(r, 16).mean().item() == pytest.approx(60, rel=0.02)
    rho = VonMisesFisher(16, 60.0).mean_resultant_length
    few = 1 - uncertainty.dispersion(views.view(8 * 256, 2, 16))
    assert few.square().mean().item() == pytest.approx(rho**2 + (1 - rho**2) / 2, rel=0.01)


def test_dispersion_of_alike_and_of_opposite_views() -> None:
    alike = torch.tensor([[[1.0, 2.0], [10.0, 20.0]]])
    opposite = torch.tensor([[[1.0, 2.0], [-1.0, -2.0]]])
    assert uncertainty.dispersion(alike).item() == pytest.approx(0, abs=1e-7)
    assert uncertainty.dispersion(opposite).item() == pytest.approx(1)
    u = torch.nn.functional.normalize(torch.randn(4, 5, 6, generator=generator("u")).double(), dim=2)
    toward = torch.nn.functional.normalize(u.mean(1, keepdim=True), dim=2)
    torch.testing.assert_close(uncertainty.dispersion(u), 1 - (u * toward).sum(2).mean(1))  # the mean cosine to it
    with pytest.raises(DataError, match="two views"):
        uncertainty.dispersion(torch.ones(3, 1, 2))


def test_an_image_s_score_does_not_depend_on_the_others() -> None:
    x = torch.randn(20, 6, generator=generator("x"))
    bank = torch.randn(30, 6, generator=generator("bank"))
    for score in (
        uncertainty.predictive_entropy,
        uncertainty.least_confidence,
        uncertainty.negative_norm,
        lambda queries: uncertainty.knn_distance(bank, queries, 3),
        lambda queries: uncertainty.dispersion(queries.view(-1, 2, 3)),
    ):
        torch.testing.assert_close(score(x)[:4], score(x[:4]))


def test_distance_grows_away_from_the_bank() -> None:
    bank = torch.tensor([[1.0, 0.0], [2.0, 0.1], [1.0, -0.1]])
    angles = torch.linspace(0.2, math.pi - 0.2, 9)
    distance = uncertainty.knn_distance(bank, torch.stack([angles.cos(), angles.sin()], 1), k=2)
    assert bool((distance.diff() > 0).all())


def test_disagreement_is_the_information_of_the_draw() -> None:
    alike = torch.randn(1, 3, 4, generator=generator("logits")).expand(5, 3, 4)
    total, spread = uncertainty.disagreement(alike)
    assert spread.tolist() == pytest.approx([0, 0, 0], abs=1e-12)
    torch.testing.assert_close(total, uncertainty.predictive_entropy(alike[0]))
    total, spread = uncertainty.disagreement(200 * torch.eye(4)[:, None])  # each of four draws sure of another class
    assert total.tolist() == spread.tolist() == [2.0]
    p, q = torch.tensor([0.9, 0.1]), torch.tensor([0.3, 0.7])
    _, spread = uncertainty.disagreement(torch.stack([p, q])[:, None].log())
    entropy = lambda x: -(x * x.log2()).sum()  # noqa: E731
    assert spread.item() == pytest.approx((entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2).item(), rel=1e-5)


def test_codes_are_the_same_twice_and_differ_between_draws() -> None:
    channel = BernoulliChannel(torch.zeros(4, 32))
    first, again = (uncertainty.draws(channel, 3, seed=1) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, uncertainty.draws(channel, 3, seed=2))

"""Slopes against functions whose Lipschitz constant is known, and the bounds of pairs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from compressl.errors import DataError
from compressl.measures.lipschitz import input_distance, interpolate, local_slope, pair_bounds, summary


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("kappa", "cosine", "kl", "sup"),
    [(1024, 0.9, 90.4352898194721, 457.946721791957), (16384, 0.99, 162.56992233038, 2317.04750059208)],
)
def test_reference_bounds(kappa: float, cosine: float, kl: float, sup: float) -> None:
    mu, other = torch.zeros(2, 1, 256, dtype=torch.float64)
    mu[0, 0] = 1
    other[0, :2] = torch.tensor([cosine, (1 - cosine**2) ** 0.5], dtype=torch.float64)
    bounds = pair_bounds(mu, other, torch.full((1,), 2.0, dtype=torch.float64), kappa)
    assert float(bounds.kl) == pytest.approx(kl, rel=1e-12)
    assert float(bounds.sup) == pytest.approx(sup, rel=1e-12)
    assert float(bounds.ratio("kl")) == pytest.approx(kl / 2, rel=1e-12)
    assert float(bounds.ratio("sup")) == pytest.approx(sup / 2, rel=1e-12)


@given(st.floats(0.1, 1e4), st.integers(2, 64), st.integers(0, 99))
def test_the_mean_never_exceeds_the_supremum(kappa: float, dim: int, seed: int) -> None:
    mu, other = F.normalize(noise(2, 16, dim, seed=seed), dim=-1)
    bounds = pair_bounds(mu, other, torch.ones(16, dtype=torch.float64), kappa)
    assert bool((bounds.kl <= bounds.sup * (1 + 1e-9)).all())
    assert bool((bounds.kl >= 0).all())


def test_pairs_of_equal_images_are_left_out() -> None:
    mu = F.normalize(noise(3, 4), dim=1)
    bounds = pair_bounds(mu, mu.roll(1, 0), torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), 10.0)
    assert bounds.rho.tolist() == [1.0, 2.0]
    with pytest.raises(DataError, match="equal images"):
        pair_bounds(mu, mu, torch.zeros(3, dtype=torch.float64), 10.0)
    with pytest.raises(DataError, match="not finite"):
        pair_bounds(mu * float("nan"), mu, torch.ones(3, dtype=torch.float64), 10.0)


@pytest.mark.parametrize(("rows", "columns"), [(5, 12), (12, 5), (30, 40), (1, 7)])
def test_of_a_linear_map_it_is_the_spectral_norm(rows: int, columns: int) -> None:
    matrix = noise(rows, columns)
    sigma, change = local_slope(lambda x: x @ matrix.T, noise(3, columns, seed=1), steps=25)
    torch.testing.assert_close(sigma, torch.linalg.matrix_norm(matrix, 2).expand(3), rtol=1e-6, atol=0)
    assert float(change.max()) < 1e-6


def test_it_rises_with_every_step_and_says_when_it_is_done() -> None:
    matrix = noise(40, 40)
    slopes, changes = zip(
        *(local_slope(lambda x: x @ matrix.T, noise(1, 40), steps=k) for k in range(1, 16)), strict=True
    )
    values = torch.cat(slopes)
    assert bool((values[1:] >= values[:-1] * (1 - 1e-12)).all())
    torch.testing.assert_close(torch.cat(changes)[1:], 1 - values[:-1] / values[1:], rtol=0, atol=1e-9)
    assert float(values[-1]) <= float(torch.linalg.matrix_norm(matrix, 2)) * (1 + 1e-12)


def test_of_normalised_features_it_is_the_slope_of_the_sphere() -> None:
    """x -> x / ||x|| stretches by 1 / ||x|| across x and by 0 along it."""
    images = noise(4, 3, 2, 2)
    sigma, _ = local_slope(lambda x: F.normalize(x.flatten(1), dim=1), images)
    torch.testing.assert_close(sigma, 1 / images.flatten(1).norm(dim=1), rtol=1e-9, atol=0)


def test_of_a_composition_it_stays_below_the_product_of_norms() -> None:
    first, second = noise(32, 12), noise(6, 32, seed=1)
    images = noise(20, 12, seed=2)
    sigma, _ = local_slope(lambda x: (x @ first.T).relu() @ second.T, images, steps=12)
    product = torch.linalg.matrix_norm(first, 2) * torch.linalg.matrix_norm(second, 2)
    assert bool((sigma <= product).all())
    masks = ((images @ first.T) > 0).double()  # the exact Jacobian of each image
    exact = torch.linalg.matrix_norm(second @ (masks[:, :, None] * first), 2)
    torch.testing.assert_close(sigma, exact, rtol=1e-6, atol=0)


@given(st.integers(0, 999), st.floats(0.01, 1.0))
def test_no_pair_exceeds_the_true_constant(seed: int, t: float) -> None:
    matrix = noise(5, 8, seed=seed)
    x, other = noise(2, 16, 8, seed=seed + 1)
    other = interpolate(x, other, t)
    slopes = (x @ matrix.T - other @ matrix.T).norm(dim=1) / input_distance(x, other)
    assert float(slopes.max()) <= float(torch.linalg.matrix_norm(matrix, 2)) * (1 + 1e-9)


def test_small_steps_approach_the_local_slope_from_below() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.copy_(noise(*parameter.shape, seed=number) / 3)
    images = noise(6, 3, 2, 2, seed=9)
    sigma, _ = local_slope(network, images)
    with torch.no_grad():
        for seed in range(20):
            near = interpolate(images, noise(6, 3, 2, 2, seed=seed + 100), 1e-6)
            slopes = (network(images) - network(near)).norm(dim=1) / input_distance(images, near)
            assert bool((slopes <= sigma * (1 + 1e-4)).all())


@given(st.floats(0.01, 100))
def test_scale_of_output_and_input_carry_over(scale: float) -> None:
    matrix, images = noise(5, 8), noise(3, 8, seed=1)

    def function(x: Tensor) -> Tensor:
        return (x @ matrix.T).tanh()

    sigma = local_slope(function, images)[0]
    torch.testing.assert_close(local_slope(lambda x: scale * function(x), images)[0], scale * sigma)
    torch.testing.assert_close(local_slope(lambda x: function(scale * x), images / scale)[0], scale * sigma)


def test_an_image_does_not_depend_on_its_batch_and_nothing_is_left_behind() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)).eval()
    images = noise(5, 3, 6, 6).float()
    whole, part = local_slope(network, images)[0], local_slope(network, images[2:4])[0]
    torch.testing.assert_close(whole[2:4], part, rtol=1e-5, atol=0)
    assert torch.equal(whole, local_slope(network, images)[0])
    assert all(p.grad is None for p in network.parameters())


def test_a_constant_function_has_slope_zero_and_overflow_is_said() -> None:
    sigma, change = local_slope(lambda x: 0 * x, torch.ones(2, 3))
    assert sigma.tolist() == [0.0, 0.0]
    assert change.tolist() == [0.0, 0.0]
    with pytest.raises(DataError, match="not finite"):
        local_slope(lambda x: x / 0, torch.ones(2, 3))


def test_a_summary_has_the_extremes_and_the_middle() -> None:
    said = summary(torch.arange(101.0))
    assert said == {"max": 100.0, "mean": 50.0, "q05": 5.0, "q50": 50.0, "q95": 95.0}

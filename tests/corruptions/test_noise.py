"""Noise against its moments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

from compressl.corruptions import corrupt
from compressl.corruptions.kind import Draws
from compressl.corruptions.noise import poisson

N, SIZE = 40, 32
VALUES = N * 3 * SIZE * SIZE
STEP = 1 / 255


def flat(value: float) -> torch.Tensor:
    return torch.full((N, 3, SIZE, SIZE), round(value * 255) / 255)


def noise_of(kind: str, severity: int, value: float) -> np.ndarray:  # type: ignore[type-arg]
    out = corrupt(flat(value), kind, severity, torch.arange(N), seed=3)
    return (out - flat(value)).double().numpy().ravel()


def close(values: np.ndarray, deviation: float) -> None:  # type: ignore[type-arg]
    """Mean and deviation of values that were cut to levels: half a level lower, a rounding error wider."""
    wide = np.hypot(deviation, STEP / 12**0.5)
    assert abs(values.mean() + STEP / 2) < 4 * wide / VALUES**0.5 + STEP / 20
    assert values.std() == pytest.approx(wide, rel=0.015)


@pytest.mark.parametrize(("severity", "c"), [*enumerate((0.04, 0.06, 0.08, 0.09, 0.10), 1)])
def test_gaussian_noise(severity: int, c: float) -> None:
    values = noise_of("gaussian_noise", severity, 0.5)
    close(values, c)
    assert abs(scipy.stats.kurtosis(values)) < 0.06


@pytest.mark.parametrize("value", [0.2, 0.4, 0.6])
def test_speckle_noise_grows_with_the_value(value: float) -> None:
    for severity, c in ((1, 0.06), (5, 0.2)):
        close(noise_of("speckle_noise", severity, value), c * round(value * 255) / 255)


@pytest.mark.parametrize("level", [1, 26, 77, 153, 255])
@pytest.mark.parametrize("c", [500, 100, 3])
def test_shot_noise_has_the_variance_of_counts(level: int, c: float, apply: Any, draws: Any) -> None:
    x = torch.full((N, 3, SIZE, SIZE), level / 255)
    values = apply("shot_noise", x, draws("shot_noise", 1, N), (c,)).numpy()  # before light above white is cut
    variance = level / 255 / c
    assert values.mean() == pytest.approx(level / 255, abs=4 * (variance / VALUES) ** 0.5)
    assert values.var() == pytest.approx(variance, rel=0.02 + 4 * (1 / (c * level / 255) / VALUES) ** 0.5)


@pytest.mark.parametrize("mean", [0.3, 4.0, 37.0, 480.0])
def test_counts_have_poissons_distribution(mean: float) -> None:
    u = Draws("counts", 1, torch.arange(20_000), 0).uniform(1)
    counts = poisson(torch.full((20_000, 1), 200), mean / 200, u).numpy().ravel()
    expected = scipy.stats.poisson(mean).ppf(u.numpy().ravel())
    assert np.array_equal(counts, expected)


def test_no_light_is_no_noise() -> None:
    assert not noise_of("shot_noise", 5, 0.0).any()
    assert not noise_of("speckle_noise", 5, 0.0).any()


@pytest.mark.parametrize(("severity", "c"), [*enumerate((0.01, 0.02, 0.03, 0.05, 0.07), 1)])
def test_impulse_noise_hits_a_share_of_the_values(severity: int, c: float) -> None:
    out = corrupt(flat(0.5), "impulse_noise", severity, torch.arange(N))
    error = 4 * (c / 2 / VALUES) ** 0.5
    for extreme in (0.0, 1.0):
        assert float((out == extreme).double().mean()) == pytest.approx(c / 2, abs=error)
    assert set(out.unique().tolist()) == {0.0, out[0, 0].median().item(), 1.0}
    channels = ((out == 0) | (out == 1)).double()
    together = float((channels[:, 0] * channels[:, 1]).mean())
    assert together < 3 * c**2 + 1e-4, "channels are hit together"


def test_large_images_have_stronger_noise() -> None:
    small, large = (
        corrupt(torch.full((1, 3, s, s), 128 / 255), "gaussian_noise", 1, torch.tensor([0])) for s in (64, 65)
    )
    assert small.std() == pytest.approx(0.04, rel=0.05)
    assert large.std() == pytest.approx(0.08, rel=0.05)


def test_draws_are_independent_of_one_another() -> None:
    drawn = Draws("x", 1, torch.arange(200), 0)
    values = torch.stack([drawn.uniform(50), drawn.uniform(50)]).flatten(1)
    assert abs(float(torch.corrcoef(values)[0, 1])) < 0.04
    assert 0 < values.min() < values.max() < 1
    assert not torch.equal(values[0], Draws("x", 2, torch.arange(200), 0).uniform(50).flatten())

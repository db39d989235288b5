"""How sure a figure is: bootstrap over test images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

FEW_LEVELS = 128


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap_mean(values: NDArray[np.generic], resamples: int = 1000, seed: int = 0) -> Estimate:
    """Mean of per-image values [N] with the percentile bootstrap interval (Efron 1979), resampling images.

    For the difference of two classifiers on the same images, give the differences: the interval is then paired.

    >>> bootstrap_mean(np.array([True, True, False, True]), resamples=200).value
    0.75
    """
    values = np.asarray(values, dtype=np.float64)
    n, random = len(values), np.random.default_rng(seed)
    levels, counts = np.unique(values, return_counts=True)
    if len(levels) <= FEW_LEVELS:  # right or wrong, say: how often each level is drawn is multinomial
        means = random.multinomial(n, counts / n, size=resamples) @ levels / n
    else:
        means = np.array([values[random.integers(0, n, n)].mean() for _ in range(resamples)])
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high))


def mean_over_draws(values: NDArray[np.floating]) -> Estimate:
    """Mean of one value for each draw [D] with the 95 % interval of Student's t, the test images taken as they are.

    Raises:
        ValueError: fewer than two draws.

    >>> estimate = mean_over_draws(np.array([1.0, 2.0, 3.0]))
    >>> round(estimate.low, 3), estimate.value, round(estimate.high, 3)
    (-0.484, 2.0, 4.484)
    """
    draws = len(values)
    if draws < 2:
        raise ValueError("One draw has no interval.")
    value = float(np.mean(values))
    half = float(stdtrit(draws - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(draws))
    return Estimate(value, value - half, value + half)

"""The interval against what it promises."""

from __future__ import annotations

import numpy as np
import pytest

from compressl.measures.intervals import bootstrap_mean


def test_the_interval_is_the_binomials() -> None:
    right = np.zeros(1000, dtype=bool)
    right[:700] = True
    estimate = bootstrap_mean(right, resamples=4000)
    half = 1.96 * (0.7 * 0.3 / 1000) ** 0.5
    assert estimate.value == 0.7
    assert estimate.low == pytest.approx(0.7 - half, abs=0.003)
    assert estimate.high == pytest.approx(0.7 + half, abs=0.003)


def test_paired_differences_are_narrower_than_unpaired_ones() -> None:
    random = np.random.default_rng(0)
    a = random.random(2000) < 0.8
    b = a ^ (random.random(2000) < 0.02)
    paired = bootstrap_mean(a.astype(float) - b.astype(float))
    alone = bootstrap_mean(a)
    assert paired.high - paired.low < (alone.high - alone.low) / 2


def test_counting_levels_is_resampling_images() -> None:
    """The same distribution of means, whether values are drawn one by one or their levels are counted."""
    random = np.random.default_rng(0)
    few = random.choice([-1.0, 0.0, 0.5, 2.0], 400)
    many = few + 1e-9 * random.standard_normal(400)  # as many levels as images
    counted, drawn = (bootstrap_mean(values, resamples=20_000) for values in (few, many))
    assert counted.value == pytest.approx(drawn.value, abs=1e-8)
    for end in ("low", "high"):
        assert getattr(counted, end) == pytest.approx(getattr(drawn, end), abs=0.004)

"""Errors relative to a baseline: by hand, and their interval against what it promises."""

from __future__ import annotations

import numpy as np
import pytest

from compressl.errors import DataError
from compressl.measures.corruption_error import corruption_errors, unpaired_difference

RANDOM = np.random.default_rng(0)


def test_by_hand() -> None:
    errors = np.array([[0.2, 0.4], [1.0, 0.0]])
    baseline = np.array([[0.6, 0.6], [0.5, 1.0]])
    found = corruption_errors(errors, baseline, resamples=200)
    assert found.by_kind == pytest.approx([0.5, 2 / 3])
    assert found.mean.value == pytest.approx(7 / 12)
    relative = corruption_errors(errors, baseline, np.array([0.0, 0.2]), np.array([0.1, 0.3]), 200)
    assert relative.by_kind == pytest.approx([(0.3 - 0.1) / (0.6 - 0.2), (0.5 - 0.1) / (0.75 - 0.2)])


def test_a_classifier_against_itself_is_one_without_doubt() -> None:
    errors = RANDOM.random((15, 50))
    found = corruption_errors(errors, errors, resamples=200)
    assert (found.mean.low, found.mean.value, found.mean.high) == pytest.approx((1, 1, 1))


def test_published_figures_have_no_images() -> None:
    errors = (RANDOM.random((3, 400)) < 0.4).astype(float)
    found = corruption_errors(errors, np.array([[0.5], [0.8], [0.4]]), resamples=300)
    assert found.by_kind == pytest.approx((errors.mean(1) / [0.5, 0.8, 0.4]).tolist())
    assert found.mean.low < found.mean.value < found.mean.high


def test_nineteen_of_twenty_intervals_hold_the_ratio() -> None:
    hits = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        errors, baseline = (random.random((2, 200)) < p for p in (0.3, 0.6))
        mean = corruption_errors(errors, baseline, resamples=200, seed=seed).mean
        hits += mean.low <= 0.5 <= mean.high
    assert 180 <= hits <= 199


def test_a_baseline_without_errors_is_named() -> None:
    with pytest.raises(DataError, match="does not err for some kind"):
        corruption_errors(np.ones((1, 3)), np.zeros((1, 3)))
    with pytest.raises(DataError, match="more than on clean images"):
        corruption_errors(np.ones((1, 3)), np.full((1, 3), 0.5), np.zeros(3), np.full(3, 0.5))


def test_difference_of_two_sets_of_images() -> None:
    first, second = RANDOM.random(500) < 0.8, RANDOM.random(300) < 0.5
    found = unpaired_difference(first, second, 500, 0)
    assert found.value == pytest.approx(first.mean() - second.mean())
    deviation = np.sqrt(first.var() / 500 + second.var() / 300)
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.15)

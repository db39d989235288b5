"""Calibration against hand-made values, scikit-learn, limits, and what the estimators promise on drawn data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from compressl.errors import DataError
from compressl.measures import calibration
from compressl.randomness import generator


def _calibrated(count: int, classes: int = 10, sharpness: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and labels drawn from their own softmax."""
    random = generator("calibrated", count, classes)
    logits = sharpness * torch.randn(count, classes, generator=random, dtype=torch.float64)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]


def _error(logits: torch.Tensor, labels: torch.Tensor, equal_mass: bool = False) -> float:
    confidence, correct = calibration.confidence(logits), logits.argmax(1) == labels
    return calibration.reliability(confidence, correct, equal_mass=equal_mass).error


def test_expected_calibration_error_by_hand() -> None:
    """Two bins of width 1/2: (0.4, 0.5] with one of two right, (0.5, 1] with two of three; 0.5 belongs to the lower."""
    confidence = torch.tensor([0.4, 0.5, 0.6, 0.8, 1.0], dtype=torch.float64)
    correct = torch.tensor([True, False, True, False, True])
    bins = calibration.reliability(confidence, correct, bins=2)
    assert bins.count.tolist() == [2, 3]
    assert bins.confidence.tolist() == pytest.approx([0.45, 0.8])
    assert bins.accuracy.tolist() == pytest.approx([0.5, 2 / 3])
    assert bins.error == pytest.approx(2 / 5 * 0.05 + 3 / 5 * (0.8 - 2 / 3))
    # of equal mass: the lower holds three images, since ceil(5 / 2) = 3
    assert calibration.reliability(confidence, correct, bins=2, equal_mass=True).count.tolist() == [3, 2]


def test_equal_confidences_share_a_bin_of_equal_mass() -> None:
    confidence, correct = torch.tensor([0.7] * 9 + [0.9]), torch.arange(10) < 7
    bins = calibration.reliability(confidence, correct, bins=5, equal_mass=True)
    assert sorted(bins.count.tolist()) == [0, 0, 0, 1, 9]
    assert bins.error == pytest.approx(0.9 * (7 / 9 - 0.7) + 0.1 * 0.9)


def test_limits_of_the_calibration_error() -> None:
    sure = 100 * torch.eye(4, dtype=torch.float64)
    assert _error(sure, torch.arange(4)) == pytest.approx(0)
    assert _error(sure, (torch.arange(4) + 1) % 4) == pytest.approx(1)
    assert _error(torch.zeros(4, 4), torch.tensor([0, 1, 2, 3])) == pytest.approx(0)  # chance, and says so


@pytest.mark.parametrize("equal_mass", [False, True])
def test_the_floor_is_what_a_calibrated_classifier_shows(equal_mass: bool) -> None:
    shown, floors = [], []
    for draw in range(40):
        logits, labels = _calibrated(2000 + draw, classes=5)
        shown.append(_error(logits, labels, equal_mass))
        floors.append(calibration.calibration_floor(calibration.confidence(logits), equal_mass=equal_mass))
    assert np.mean(shown) == pytest.approx(np.mean(floors), rel=0.1)
    assert np.mean(shown) > 0.01, "it is not 0, although the classifier is perfect"


def test_the_interval_holds_its_figure_and_narrows_with_images() -> None:
    widths = []
    for count in (400, 6400):
        logits, labels = _calibrated(count)
        right = logits.argmax(1) == labels
        e = calibration.calibration_error(calibration.confidence(3 * logits), right, resamples=300)
        again = calibration.calibration_error(calibration.confidence(3 * logits), right, resamples=300)
        assert e == again
        assert e.low < e.value < e.high
        assert e.value == pytest.approx(calibration.reliability(calibration.confidence(3 * logits), right).error)
        widths.append(e.high - e.low)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.3)


def test_the_interval_covers_a_large_error_as_often_as_it_says() -> None:
    """Overconfident by 0.15 in the one bin that is used: 95 % of intervals hold it, give or take."""
    held = 0
    for draw in range(120):
        right = torch.rand(300, generator=generator("coverage", draw)) < 0.75
        e = calibration.calibration_error(torch.full((300,), 0.9), right, resamples=200, seed=draw)
        held += e.low <= 0.15 <= e.high
    assert 0.88 <= held / 120 <= 0.99


def test_brier_and_likelihood_equal_scikit_learns() -> None:
    logits, labels = _calibrated(300, classes=4)
    p = logits.softmax(1).numpy()
    assert float(calibration.brier(logits, labels).mean()) == pytest.approx(
        brier_score_loss(labels.numpy(), p, scale_by_half=False, labels=range(4))
    )
    nats = float(calibration.negative_log_likelihood(logits, labels).mean()) * math.log(2)
    assert nats == pytest.approx(log_loss(labels.numpy(), p, labels=range(4)))


def test_limits_of_the_proper_scores() -> None:
    sure, labels = 1000 * torch.eye(3), torch.arange(3)
    assert calibration.brier(sure, labels).tolist() == [0, 0, 0]
    assert calibration.brier(sure, (labels + 1) % 3).tolist() == [2, 2, 2]
    assert bool(torch.isfinite(calibration.negative_log_likelihood(sure, (labels + 1) % 3)).all())


@settings(max_examples=25)
@given(st.floats(0.1, 8), st.integers(0, 5))
def test_temperature_undoes_a_scale(scale: float, shift: int) -> None:
    """The temperature of scale * logits is scale times theirs; a constant per image changes nothing."""
    logits, labels = _calibrated(400)
    fitted = calibration.fit_temperature(logits, labels)
    assert fitted == pytest.approx(1, abs=0.1), "the labels were drawn at temperature 1"
    assert calibration.fit_temperature(scale * logits + shift, labels) == pytest.approx(scale * fitted, rel=1e-6)


def test_temperature_is_one_dimensional_logistic_regression() -> None:
    """Two classes: the slope of an unpenalised logistic regression without intercept on the difference of logits."""
    logits, labels = _calibrated(500, classes=2)
    theirs = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10)
    theirs.fit((logits[:, 1:] - logits[:, :1]).numpy(), labels.numpy())
    assert 1 / calibration.fit_temperature(logits, labels) == pytest.approx(theirs.coef_.item(), rel=1e-4)


def test_temperature_at_its_ends() -> None:
    right = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert calibration.fit_temperature(right, torch.tensor([0, 1])) == pytest.approx(calibration.LOWEST)
    assert calibration.fit_temperature(20 * right, torch.tensor([0, 1])) == pytest.approx(calibration.LOWEST)
    assert calibration.fit_temperature(right, torch.tensor([1, 0])) == pytest.approx(calibration.HIGHEST)
    assert calibration.fit_temperature(torch.ones(3, 4), torch.tensor([0, 1, 2])) == 1


def test_people() -> None:
    shares = calibration.vote_shares(torch.tensor([[1, 1, 2], [0, 5, 0]]))
    assert shares.tolist() == [[0.25, 0.25, 0.5], [0, 1, 0]]
    assert calibration.entropy(shares).tolist() == [1.5, 0]
    crossed = calibration.cross_entropy(torch.zeros(2, 3), shares)
    assert crossed.tolist() == pytest.approx([math.log2(3)] * 2)
    assert calibration.cross_entropy(shares.log().clamp_min(-1e3), shares).tolist() == pytest.approx([1.5, 0])


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=8))
def test_divergence_from_people_is_never_negative(rows: list[tuple[float, ...]]) -> None:
    logits = torch.tensor(rows, dtype=torch.float64)
    shares = logits.roll(1, 1).softmax(1)
    divergence = calibration.cross_entropy(logits, shares) - calibration.entropy(shares)
    assert bool((divergence >= -1e-12).all())


def test_bad_input_is_a_sentence() -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        calibration.reliability(torch.tensor([1.5]), torch.tensor([True]))
    with pytest.raises(DataError, match="between 0 and 1"):
        calibration.calibration_floor(torch.tensor([]))
    with pytest.raises(DataError, match="between 0 and 1"):
        calibration.calibration_floor(torch.tensor([float("nan")]))
    with pytest.raises(DataError, match="finite logits"):
        calibration.fit_temperature(torch.full((2, 2), float("nan")), torch.tensor([0, 1]))
    with pytest.raises(DataError, match="1 image"):
        calibration.vote_shares(torch.tensor([[0, 0], [1, 0]]))
    with pytest.raises(DataError, match="not negative"):
        calibration.vote_shares(torch.tensor([[-1.0, 2.0]]))

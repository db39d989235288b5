"""Detection and rank correlation against scikit-learn and SciPy, by hand, and under what should not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from compressl.errors import DataError
from compressl.measures import ranking
from compressl.randomness import generator

# few distinct values: many ties
scored = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40)


def _unzip(rows: list[tuple[int, bool]]) -> tuple[torch.Tensor, torch.Tensor]:
    scores, flags = zip(*rows, strict=True)
    return torch.tensor(scores, dtype=torch.float64), torch.tensor(flags)


@given(scored)
def test_midranks_equal_scipys(rows: list[tuple[int, bool]]) -> None:
    scores, _ = _unzip(rows)
    assert ranking.midranks(scores).tolist() == stats.rankdata(scores.numpy()).tolist()


@given(scored)
def test_auroc_equals_scikit_learns_with_ties(rows: list[tuple[int, bool]]) -> None:
    scores, positive = _unzip(rows)
    assume(0 < int(positive.sum()) < len(positive))
    e = ranking.auroc(scores, positive)
    assert e.value == pytest.approx(roc_auc_score(positive.numpy(), scores.numpy()))
    assert 0 <= e.low <= e.value <= e.high <= 1
    # any rising map leaves it alone, the order of the images does, a falling map mirrors it
    assert ranking.auroc(scores.exp(), positive).value == pytest.approx(e.value)
    assert ranking.auroc(scores.flip(0), positive.flip(0)).low == pytest.approx(e.low)
    assert ranking.auroc(-scores, positive).value == pytest.approx(1 - e.value)


def test_limits_of_detection() -> None:
    positive = torch.tensor([False, False, True, True])
    for scores, auroc, fpr in (([1, 2, 3, 4], 1, 0), ([4, 3, 2, 1], 0, 1), ([7, 7, 7, 7], 0.5, 1)):
        s = torch.tensor(scores)
        assert ranking.auroc(s, positive).value == auroc
        assert ranking.false_positive_rate(s, positive) == fpr


def test_the_interval_of_delong_has_the_standard_error_over_draws() -> None:
    """Two normals one deviation apart: AUROC = Phi(1 / sqrt 2)."""
    truth, values, errors, held = stats.norm.cdf(1 / math.sqrt(2)), [], [], 0
    for draw in range(200):
        scores = torch.randn(150, generator=generator("auroc", draw))
        positive = torch.arange(150) < 50
        e = ranking.auroc(scores + positive.float(), positive)
        values.append(e.value)
        errors.append((e.high - e.low) / 2 / ranking.Z)
        held += e.low <= truth <= e.high
    assert np.mean(values) == pytest.approx(truth, abs=0.01)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.12)
    assert held / 200 == pytest.approx(0.95, abs=0.04)


def test_false_positive_rate_by_hand() -> None:
    """95 of 100 own images must pass: the threshold is the 95th; ties with it pass."""
    own, foreign = torch.arange(1.0, 101), torch.tensor([0.5, 95.0, 95.5, 200.0])
    scores, positive = torch.cat([own, foreign]), torch.arange(104) >= 100
    assert ranking.false_positive_rate(scores, positive) == 0.5
    assert ranking.false_positive_rate(scores, positive, kept=1.0) == 0.75


@given(scored)
def test_spearman_equals_scipys(rows: list[tuple[int, bool]]) -> None:
    x, flags = _unzip(rows)
    y = x.roll(1) + flags
    assume(len(x) >= 4 and len(x.unique()) > 1 and len(y.unique()) > 1)
    e = ranking.spearman(x, y)
    assert e.value == pytest.approx(stats.spearmanr(x.numpy(), y.numpy()).statistic, abs=1e-12)
    assert -1 <= e.low <= e.value <= e.high <= 1
    assert ranking.spearman(x.exp(), y).value == pytest.approx(e.value)


@given(st.lists(st.lists(st.integers(0, 5), min_size=6, max_size=6), min_size=1, max_size=6))
def test_trend_is_spearmans_correlation_row_by_row(rows: list[list[int]]) -> None:
    expected = [0.0 if len(set(row)) == 1 else stats.spearmanr(row, range(6)).statistic for row in rows]
    assert ranking.trend(torch.tensor(rows)).tolist() == pytest.approx(expected, abs=1e-12)


def test_risk_and_coverage_by_hand() -> None:
    wrong = torch.tensor([False, False, True, False, True])
    s = ranking.selective(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]), wrong)
    assert s.risk.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 4, 2 / 5])
    assert s.aurc == pytest.approx((1 / 3 + 1 / 4 + 2 / 5) / 5)
    assert s.oracle == pytest.approx((1 / 4 + 2 / 5) / 5)
    assert s.at(torch.tensor([0.2, 0.6, 0.61, 1.0])).tolist() == pytest.approx([0, 1 / 3, 1 / 4, 2 / 5])


def test_ties_count_as_the_mean_over_their_orders() -> None:
    """All 3! orders of three tied images by hand: the first is wrong in a third of them."""
    s = ranking.selective(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([True, False, False]))
    assert s.risk.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3])


@given(scored)
def test_selection_under_what_should_not_matter(rows: list[tuple[int, bool]]) -> None:
    scores, wrong = _unzip(rows)
    s = ranking.selective(scores, wrong)
    assert float(s.risk[-1]) == pytest.approx(float(wrong.double().mean()))
    assert s.excess >= -1e-12
    for same in (ranking.selective(scores.exp(), wrong), ranking.selective(scores.flip(0), wrong.flip(0))):
        assert same.aurc == pytest.approx(s.aurc)
    assert ranking.selective(wrong.double(), wrong).excess == pytest.approx(0, abs=1e-12)


def test_the_oracle_is_near_its_published_approximation() -> None:
    wrong = torch.arange(10_000) < 2_000
    assert ranking.selective(wrong.double(), wrong).oracle == pytest.approx(0.2 + 0.8 * math.log(0.8), abs=2e-4)


def test_an_uninformative_score_has_the_error_rate_as_its_area() -> None:
    wrong = torch.arange(4000) % 4 == 0
    scores = torch.rand(4000, generator=generator("uninformative"))
    assert ranking.selective(scores, wrong).aurc == pytest.approx(0.25, abs=0.03)
    assert ranking.selective(torch.zeros(4000), wrong).aurc == pytest.approx(0.25)


def test_the_interval_of_the_area() -> None:
    scores = torch.rand(500, generator=generator("area"))
    wrong = torch.rand(500, generator=generator("area errors")) < scores / 2
    e = ranking.area_interval(scores, wrong, resamples=300)
    assert e.low < e.value < e.high
    assert e == ranking.area_interval(scores, wrong, resamples=300)
    areas = []  # other images of the same law
    for draw in range(100):
        s = torch.rand(500, generator=generator("area", draw))
        areas.append(ranking.selective(s, torch.rand(500, generator=generator("area errors", draw)) < s / 2).aurc)
    assert (e.high - e.low) / 2 / ranking.Z == pytest.approx(np.std(areas), rel=0.35)


def test_bad_input_is_a_sentence() -> None:
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0])
    for flags, message in ((torch.ones(4), "no negative"), (torch.zeros(4), "no positive")):
        for function in (ranking.auroc, ranking.false_positive_rate):
            with pytest.raises(DataError, match=message):
                function(scores, flags.bool())
    with pytest.raises(DataError, match="not finite"):
        ranking.selective(torch.tensor([1.0, float("nan")]), torch.tensor([True, False]))
    with pytest.raises(DataError, match="constant"):
        ranking.spearman(scores, torch.ones(4))
    with pytest.raises(DataError, match="there are 3"):
        ranking.spearman(scores[:3], scores[:3])
    with pytest.raises(DataError, match="needs images"):
        ranking.selective(torch.tensor([]), torch.tensor([]))

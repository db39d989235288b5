"""Draws of few labels: stratified, nested, the same for the same key; and what their interval covers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from compressl.errors import DataError
from compressl.measures.few_labels import draw_fraction, draw_shots, over_draws, rank_in_class

LABELS = torch.tensor([0] * 30 + [1] * 20 + [2] * 55)[torch.randperm(105, generator=torch.Generator().manual_seed(0))]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 5))
def test_ranks_number_the_images_of_each_class(labels: list[int], seed: int) -> None:
    y = torch.tensor(labels)
    rank, size = rank_in_class(y, "test", seed)
    for label in set(labels):
        own = y == label
        assert sorted(rank[own].tolist()) == list(range(int(own.sum())))
        assert set(size[own].tolist()) == {int(own.sum())}


def test_every_class_has_its_number_and_its_share() -> None:
    assert LABELS[draw_shots(LABELS, 7, 0, 0)].bincount().tolist() == [7, 7, 7]
    assert LABELS[draw_fraction(LABELS, 0.1, 0, 0)].bincount().tolist() == [3, 2, 6]
    assert LABELS[draw_fraction(LABELS, 0.001, 0, 0)].bincount().tolist() == [1, 1, 1]
    assert torch.equal(draw_fraction(LABELS, 1.0, 0, 0), torch.arange(105))


def test_a_draw_is_nested_in_those_of_more_labels() -> None:
    few, more, share = draw_shots(LABELS, 2, 3, 1), draw_shots(LABELS, 9, 3, 1), draw_fraction(LABELS, 0.5, 3, 1)
    assert set(few.tolist()) < set(more.tolist()) < set(share.tolist())


def test_a_draw_is_a_function_of_seed_and_number() -> None:
    draws = {(s, d): tuple(draw_shots(LABELS, 5, s, d).tolist()) for s in range(3) for d in range(3)}
    assert len(set(draws.values())) == 9
    assert draws[1, 2] == tuple(draw_shots(LABELS, 5, 1, 2).tolist())


def test_each_image_is_drawn_as_often_as_another_of_its_class() -> None:
    y = torch.arange(40) % 2
    counts = sum(torch.isin(torch.arange(40), draw_shots(y, 5, 0, d)).double() for d in range(400))
    assert stats.chisquare(np.asarray(counts)).pvalue > 1e-3


def test_a_class_that_is_too_small_is_a_sentence() -> None:
    with pytest.raises(DataError, match="smallest class has 20 training images, fewer than 21"):
        draw_shots(LABELS, 21, 0, 0)


def test_a_gap_in_the_numbering_of_classes_is_no_class() -> None:
    assert len(draw_shots(torch.tensor([0, 0, 3, 3]), 2, 0, 0)) == 4


def test_the_interval_of_draws_that_agree_is_that_of_the_test_images() -> None:
    right = torch.arange(1000) < 700
    estimate = over_draws(right.expand(5, -1))
    half = stats.t.ppf(0.975, 4) * np.sqrt(0.7 * 0.3 / 999)
    assert estimate.value == pytest.approx(0.7)
    assert estimate.high - estimate.value == pytest.approx(half)


def test_the_interval_covers_new_draws_and_new_test_images() -> None:
    """Accuracy 0.6 on average, another from draw to draw, images of different difficulty."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        chance = 0.6 + 0.05 * random.standard_normal((5, 1)) + 0.2 * random.standard_normal((1, 300))
        estimate = over_draws(torch.from_numpy(random.random((5, 300)) < chance))
        covered += estimate.low <= 0.6 <= estimate.high
    assert covered / 400 > 0.93


def test_the_interval_stays_between_none_and_all() -> None:
    right = torch.ones(2, 10, dtype=torch.bool)
    right[0, :5] = False
    estimate = over_draws(right)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_one_draw_has_no_interval() -> None:
    with pytest.raises(DataError, match="no interval"):
        over_draws(torch.ones(1, 10, dtype=torch.bool))

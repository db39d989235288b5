"""kNN and the linear probe against scikit-learn, and the interval against what it promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from compressl.evaluation.intervals import bootstrap_mean
from compressl.evaluation.knn import knn_predict, nearest
from compressl.evaluation.linear import fit, fit_best


@pytest.fixture
def blobs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Five overlapping classes in 8 dimensions: train and test."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(5, 8, generator=generator)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(0, 5, (count,), generator=generator)
        return centers[labels] + 0.9 * torch.randn(count, 8, generator=generator), labels

    return (*draw(400), *draw(300))


def test_knn_equals_scikit_learns(blobs: tuple[torch.Tensor, ...]) -> None:
    x, y, queries, _ = blobs
    theirs = KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
    )
    expected = theirs.fit(x.numpy(), y.numpy()).predict(queries.numpy())
    got = knn_predict(x, y, queries, 5, k=20, temperature=0.07).numpy()
    assert (got == expected).mean() > 0.995  # float32 against float64 at a tie


def test_knn_temperature_matters(blobs: tuple[torch.Tensor, ...]) -> None:
    x, y, queries, _ = blobs
    sharp, flat = (knn_predict(x, y, queries, 5, k=50, temperature=t) for t in (0.001, 100.0))
    assert torch.equal(sharp, knn_predict(x, y, queries, 5, k=1))
    assert not torch.equal(sharp, flat)


def test_neighbours_are_in_falling_order_and_chunks_change_nothing(
    blobs: tuple[torch.Tensor, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, _, queries, _ = blobs
    cosines, rows = nearest(x, queries, 7)
    assert bool((cosines.diff(dim=1) <= 0).all())
    monkeypatch.setattr("compressl.evaluation.knn.CHUNK", 13)
    assert torch.equal(nearest(x, queries, 7)[1], rows)
    assert nearest(x[:3], queries, 7)[1].shape == (300, 3)


@pytest.mark.parametrize("weight_decay", [1e-3, 1e-1])
def test_the_probe_reaches_scikit_learns_optimum(blobs: tuple[torch.Tensor, ...], weight_decay: float) -> None:
    x, y, queries, _ = blobs
    probe = fit(x, y, 5, weight_decay)
    standard = ((x - x.mean(0)) / x.std(0)).numpy()
    theirs = LogisticRegression(C=1 / (weight_decay * len(x)), tol=1e-8, max_iter=2000).fit(standard, y.numpy())
    ours = torch.softmax(probe.logits(queries), 1).numpy()
    expected = theirs.predict_proba(((queries - x.mean(0)) / x.std(0)).numpy())
    np.testing.assert_allclose(ours, expected, atol=2e-3)


def test_the_probe_survives_a_constant_column(blobs: tuple[torch.Tensor, ...]) -> None:
    x, y, queries, _ = blobs
    constant = torch.full((len(x), 1), 3.0)
    probe = fit(torch.cat([x, constant], 1), y, 5, 1e-3)
    with_constant = probe.predict(torch.cat([queries, torch.full((len(queries), 1), 3.0)], 1))
    assert (with_constant == fit(x, y, 5, 1e-3).predict(queries)).float().mean() > 0.99


def test_weight_decay_is_chosen_by_generalisation() -> None:
    """Few images, many noise columns: the weakest decay fits the training images best and must not be chosen."""
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(0, 2, (100,), generator=generator)
    signal = (2.0 * y - 1)[:, None] + torch.randn(100, 1, generator=generator)
    x = torch.cat([signal, torch.randn(100, 200, generator=generator)], 1)
    probe = fit_best(x, y, 2, (1e-6, 1e-1, 1.0), seed=0)
    assert probe.weight_decay >= 0.1


def test_the_choice_is_made_on_images_that_did_not_fit_the_probe(
    blobs: tuple[torch.Tensor, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y, _, _ = blobs
    sizes: list[int] = []
    from compressl.evaluation import linear

    plain = linear.fit

    def spy(features: torch.Tensor, *rest: Any, **more: Any) -> linear.LinearProbe:
        sizes.append(len(features))
        return plain(features, *rest, **more)

    monkeypatch.setattr(linear, "fit", spy)
    linear.fit_best(x, y, 5, (1e-3, 1e-1), seed=3)
    assert sizes == [320, 320, 400]


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

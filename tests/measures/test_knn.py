"""kNN against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from compressl.measures.knn import knn_predict, nearest

Blobs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def test_knn_equals_scikit_learns(blobs: Blobs) -> None:
    x, y, queries, _ = blobs
    theirs = KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
    )
    expected = theirs.fit(x.numpy(), y.numpy()).predict(queries.numpy())
    got = knn_predict(x, y, queries, 5, k=20, temperature=0.07).numpy()
    assert (got == expected).mean() > 0.995  # float32 against float64 at a tie


def test_knn_temperature_matters(blobs: Blobs) -> None:
    x, y, queries, _ = blobs
    sharp, flat = (knn_predict(x, y, queries, 5, k=50, temperature=t) for t in (0.001, 100.0))
    assert torch.equal(sharp, knn_predict(x, y, queries, 5, k=1))
    assert not torch.equal(sharp, flat)


def test_neighbours_are_in_falling_order_and_chunks_change_nothing(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, _, queries, _ = blobs
    cosines, rows = nearest(x, queries, 7)
    assert bool((cosines.diff(dim=1) <= 0).all())
    monkeypatch.setattr("compressl.measures.knn.CHUNK", 13 * len(x))
    assert torch.equal(nearest(x, queries, 7)[1], rows)
    assert nearest(x[:3], queries, 7)[1].shape == (300, 3)


def test_neighbours_are_those_of_a_full_sort_in_double_precision(blobs: Blobs) -> None:
    x, _, queries, _ = blobs
    cosines = torch.nn.functional.normalize(queries.double(), dim=1) @ torch.nn.functional.normalize(x.double()).T
    values, rows = cosines.sort(dim=1, descending=True)
    found = nearest(x, queries, 9)
    torch.testing.assert_close(found[0].double(), values[:, :9], atol=1e-6, rtol=0)
    assert (found[1] == rows[:, :9]).float().mean() > 0.999


def test_an_image_without_any_feature_has_a_class_all_the_same(blobs: Blobs) -> None:
    x, y, _, _ = blobs
    assert 0 <= int(knn_predict(x, y, torch.zeros(1, x.shape[1]), 5)) < 5

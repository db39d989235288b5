"""The ridge classifier against scikit-learn's, and its leave-one-out against leaving out one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge, RidgeCV
from torch import Tensor

from compressl.errors import DataError
from compressl.measures.linear import standardise
from compressl.measures.ridge import RIDGES, decompose, fit_ridge, leave_one_out

Blobs = tuple[Tensor, Tensor, Tensor, Tensor]
SHAPES = [(60, 8), (12, 40)]  # more images than features, and fewer


def data(images: int, features: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(images)
    y = torch.arange(images) % 3
    centers = torch.randn(3, features, generator=generator)
    return centers[y] + torch.randn(images, features, generator=generator), y


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ridge", [1e-3, 0.1, 10.0])
def test_the_solution_is_scikit_learns(shape: tuple[int, int], ridge: float) -> None:
    x, y = data(*shape)
    theirs = Ridge(alpha=ridge * len(x)).fit(standardise(x)[0].double().numpy(), F.one_hot(y, 3).double().numpy())
    ours = fit_ridge(x, y, 3, (ridge,))
    np.testing.assert_allclose(ours.weight.T, theirs.coef_, atol=2e-5)
    np.testing.assert_allclose(ours.bias, theirs.intercept_, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_leaving_out_in_closed_form_is_leaving_out_one_by_one(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compressl.measures.ridge.CHUNK", 5 * shape[1])  # several parts
    x, y = data(*shape)
    ridges = torch.tensor([1e-2, 1.0, 100.0], dtype=torch.float64)
    z, target = standardise(x)[0].double().numpy(), F.one_hot(y, 3).double().numpy()
    expected = []
    for ridge in ridges:
        errors = []
        for i in range(len(x)):
            rest = np.arange(len(x)) != i
            fitted = Ridge(alpha=float(ridge) * len(x)).fit(z[rest], target[rest])
            errors.append(((target[i] - fitted.predict(z[i : i + 1])[0]) ** 2).sum())
        expected.append(np.mean(errors))
    np.testing.assert_allclose(leave_one_out(decompose(x, y, 3), y, ridges), expected, rtol=1e-5)


def test_the_choice_is_scikit_learns(blobs: Blobs) -> None:
    x, y, queries, _ = blobs
    z, target = standardise(x)[0].double().numpy(), F.one_hot(y, 5).double().numpy()
    theirs = RidgeCV(alphas=[r * len(x) for r in RIDGES]).fit(z, target)
    ours = fit_ridge(x, y, 5)
    assert ours.weight_decay * len(x) == pytest.approx(theirs.alpha_)
    assert RIDGES[0] < ours.weight_decay < RIDGES[-1]
    expected = theirs.predict(((queries - ours.mean) / ours.std).numpy()).argmax(1)
    assert (ours.predict(queries).numpy() == expected).mean() > 0.995


def test_noise_asks_for_more_regularisation_than_signal() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(100) % 2
    noise = torch.randn(100, 60, generator=generator)
    signal = torch.cat([(2.0 * y - 1)[:, None] + 0.01 * noise[:, :1], 0.01 * noise[:, 1:]], 1)
    assert fit_ridge(noise, y, 2).weight_decay > 100 * fit_ridge(signal, y, 2).weight_decay


def test_one_image_of_each_class_is_the_nearest_of_them() -> None:
    x = torch.eye(4, 6)
    probe = fit_ridge(x, torch.arange(4), 4)
    assert probe.predict(x + 0.1).tolist() == [0, 1, 2, 3]


def test_a_class_without_images_is_never_predicted(blobs: Blobs) -> None:
    x, y, queries, _ = blobs
    some = y != 2
    assert 2 not in fit_ridge(x[some], y[some], 7).predict(10 * queries).unique().tolist()
    assert int(fit_ridge(x[some], y[some], 7).predict(queries).max()) < 5


def test_features_that_cannot_be_used_are_sentences(blobs: Blobs) -> None:
    x, y, _, _ = blobs
    with pytest.raises(DataError, match="constant"):
        fit_ridge(torch.ones(10, 4), torch.arange(10) % 2, 2)
    with pytest.raises(DataError, match="not finite"):
        fit_ridge(torch.full((10, 4), torch.nan), torch.arange(10) % 2, 2)
    constant = torch.cat([x, torch.full((len(x), 1), 7.0)], 1)
    assert torch.equal(fit_ridge(constant, y, 5).predict(constant), fit_ridge(x, y, 5).predict(x))

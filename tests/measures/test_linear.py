"""The linear probe against scikit-learn and against torch's own L-BFGS, one weight decay at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from compressl.errors import DataError
from compressl.measures import linear
from compressl.measures.linear import LinearProbe, fit, fit_all, fit_best, held_out, standardise

Blobs = tuple[Tensor, Tensor, Tensor, Tensor]
DECAYS = (1e-4, 1e-3, 1e-1)


def loss(probe: LinearProbe, x: Tensor, y: Tensor) -> float:
    """What the fit minimises, in float64."""
    logits = ((x - probe.mean) / probe.std).double() @ probe.weight.double() + probe.bias.double()
    return float(F.cross_entropy(logits, y) + probe.weight_decay / 2 * probe.weight.double().square().sum())


def by_torch(x: Tensor, y: Tensor, classes: int, weight_decay: float) -> LinearProbe:
    """One problem after another in float64, by the optimizer that torch brings."""
    mean, std = x.mean(0), x.std(0)
    z = ((x - mean) / std).double()
    weight = z.new_zeros(x.shape[1], classes).requires_grad_()
    bias = z.new_zeros(classes).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=2000, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(z @ weight + bias, y) + weight_decay / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(closure)
    return LinearProbe(mean, std, weight.detach(), bias.detach(), weight_decay)


@pytest.mark.parametrize("weight_decay", [1e-3, 1e-1])
def test_the_probe_reaches_scikit_learns_optimum(blobs: Blobs, weight_decay: float) -> None:
    x, y, queries, _ = blobs
    probe = fit(x, y, 5, weight_decay)
    standard = ((x - x.mean(0)) / x.std(0)).numpy()
    theirs = LogisticRegression(C=1 / (weight_decay * len(x)), tol=1e-8, max_iter=2000).fit(standard, y.numpy())
    ours = torch.softmax(probe.logits(queries), 1).numpy()
    expected = theirs.predict_proba(((queries - x.mean(0)) / x.std(0)).numpy())
    np.testing.assert_allclose(ours, expected, atol=2e-3)


def test_the_probe_survives_a_constant_column(blobs: Blobs) -> None:
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


def test_many_weight_decays_at_once_reach_the_optimum_of_each(blobs: Blobs) -> None:
    x, y, _, _ = blobs
    for probe, weight_decay in zip(fit_all(x, y, 5, DECAYS), DECAYS, strict=True):
        assert probe.weight_decay == weight_decay
        assert loss(probe, x, y) == pytest.approx(loss(by_torch(x, y, 5, weight_decay), x, y), abs=1e-5)
        theirs = LogisticRegression(C=1 / (weight_decay * len(x)), tol=1e-10, max_iter=5000)
        theirs.fit(standardise(x)[0].numpy(), y.numpy())
        weight, bias = torch.from_numpy(theirs.coef_.T).float(), torch.from_numpy(theirs.intercept_).float()
        expected = LinearProbe(probe.mean, probe.std, weight, bias, weight_decay)
        assert loss(probe, x, y) == pytest.approx(loss(expected, x, y), abs=1e-5)


@pytest.mark.parametrize("widest", [0, 2048])
def test_correlated_features_of_many_scales_reach_the_optimum(monkeypatch: pytest.MonkeyPatch, widest: int) -> None:
    """With the preconditioner and, as for very wide features, without."""
    monkeypatch.setattr(linear, "WIDEST", widest)
    generator = torch.Generator().manual_seed(3)
    y = torch.randint(0, 3, (300,), generator=generator)
    hidden = torch.randn(3, 6, generator=generator)[y] + torch.randn(300, 6, generator=generator)
    x = hidden @ torch.randn(6, 30, generator=generator) + 0.05 * torch.randn(300, 30, generator=generator)
    x = x * torch.logspace(-4, 3, 30) + 5
    (probe,) = fit_all(x, y, 3, [1e-3])
    assert loss(probe, x, y) == pytest.approx(loss(by_torch(x, y, 3, 1e-3), x, y), abs=1e-5)


def test_company_changes_no_probe(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the weight decays beside it nor the size of the groups that memory allows."""
    x, y, _, _ = blobs
    together = fit_all(x, y, 5, DECAYS)
    monkeypatch.setattr(linear, "AT_ONCE", 1)
    for one, alone in zip(together, fit_all(x, y, 5, DECAYS), strict=True):
        torch.testing.assert_close(one.weight, alone.weight, atol=2e-3, rtol=1e-2)
        assert loss(one, x, y) == pytest.approx(loss(alone, x, y), abs=1e-6)


def test_separable_classes_without_weight_decay_stay_finite() -> None:
    """The optimum lies at infinity."""
    x = torch.linspace(-1, 1, 40)[:, None]
    y = (x[:, 0] > 0).long()
    probe = fit(x, y, 2, 0.0)
    assert torch.isfinite(probe.weight).all()
    assert torch.equal(probe.predict(x), y)


def test_a_start_elsewhere_ends_in_the_same_place(blobs: Blobs) -> None:
    x, y, _, _ = blobs
    start = LinearProbe(
        x.mean(0), x.std(0), 3 * torch.randn(8, 5, generator=torch.Generator().manual_seed(1)), torch.ones(5), 0.0
    )
    assert loss(fit(x, y, 5, 1e-3, start), x, y) == pytest.approx(loss(fit(x, y, 5, 1e-3), x, y), abs=1e-6)


def test_the_choice_is_made_on_images_that_did_not_fit_the_probe(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _, _ = blobs
    sizes: list[int] = []
    plain = linear.fit_all

    def spy(features: Tensor, *rest: Any, **more: Any) -> list[LinearProbe]:
        sizes.append(len(features))
        return plain(features, *rest, **more)

    monkeypatch.setattr(linear, "fit_all", spy)
    fit_best(x, y, 5, (1e-3, 1e-1), seed=3)
    held, kept = held_out(y, 3)
    assert sizes == [len(kept), 400]
    assert len(held) == pytest.approx(80, abs=2)


def test_the_held_out_fifth_is_one_of_each_class_and_of_no_other_image() -> None:
    y = torch.tensor([0] * 50 + [1] * 10 + [2] * 3 + [3])
    held, kept = held_out(y, seed=0)
    assert y[held].bincount(minlength=4).tolist() == [10, 2, 1, 0]
    assert torch.equal(torch.cat([held, kept]).sort().values, torch.arange(64))
    assert not torch.equal(held, held_out(y, seed=1)[0])
    with pytest.raises(DataError, match="No class has the three"):
        held_out(torch.arange(10) % 5, seed=0)


def test_the_same_probe_twice(blobs: Blobs) -> None:
    x, y, _, _ = blobs
    assert torch.equal(fit_best(x, y, 5, DECAYS).weight, fit_best(x, y, 5, DECAYS).weight)


def test_features_that_cannot_be_used_are_sentences(blobs: Blobs) -> None:
    x, y, _, _ = blobs
    broken = x.clone()
    broken[3, 2] = float("inf")
    with pytest.raises(DataError, match="not finite"):
        fit(broken, y, 5, 1e-3)
    with pytest.raises(DataError, match="two images"):
        fit(x[:1], y[:1], 5, 1e-3)


def test_a_small_column_is_not_taken_for_a_constant_one() -> None:
    x = torch.tensor([[1e-9], [2e-9], [-1e-9], [-2e-9]])
    assert standardise(x)[0].abs().max() > 1
    assert not standardise(torch.full((1001, 1), 0.1))[0].any()

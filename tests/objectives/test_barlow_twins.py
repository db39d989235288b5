"""Barlow Twins against the formula of its paper, written out in loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressl.errors import UsageError
from compressl.objectives import BarlowTwinsLoss
from compressl.objectives.barlow_twins import standardize
from compressl.objectives.common import off_diagonal

SEEDS = st.integers(0, 999)
CLOSE = {"rtol": 1e-11, "atol": 1e-11}


def reference(a, b, weight=0.0051, centre=True, divisor=0, epsilon=1e-5):
    """Loss, invariance and redundancy of two lists of rows; ``divisor`` is subtracted from N in every mean."""
    n, d = len(a), len(a[0])

    def normalised(z):
        columns = []
        for column in zip(*z, strict=True):
            mean = sum(column) / n if centre else 0.0
            variance = sum((x - mean) ** 2 for x in column) / (n - divisor)
            columns.append([(x - mean) / math.sqrt(variance + epsilon) for x in column])
        return columns

    za, zb = normalised(a), normalised(b)
    invariance = redundancy = 0.0
    for i in range(d):
        for j in range(d):
            c = sum(x * y for x, y in zip(za[i], zb[j], strict=True)) / n
            if i == j:
                invariance += (1 - c) ** 2
            else:
                redundancy += c**2
    return invariance + weight * redundancy, invariance, redundancy


def test_the_loss_is_the_formula_of_the_paper(embeddings):
    a, b = embeddings(0)
    a, b = 2 * a + 0.7, a + 0.5 * b - 0.3
    for weight in (0.0051, 0.3):
        loss, terms = BarlowTwinsLoss(weight)(a, b)
        expected, invariance, redundancy = reference(a.tolist(), b.tolist(), weight)
        assert loss.item() == pytest.approx(expected, rel=1e-12)
        assert terms["invariance"].item() == pytest.approx(invariance, rel=1e-12)
        assert terms["redundancy"].item() == pytest.approx(redundancy, rel=1e-12)
        assert set(terms) == {"invariance", "redundancy", "correlation"}
    loss, _ = BarlowTwinsLoss(0.3)(a, b)
    _, same_view, _ = reference(a.tolist(), a.tolist())
    diagonal = invariance - 8 + 2 * 8 * terms["correlation"].item()  # sum_i C_ii^2
    for wrong in (
        reference(a.tolist(), b.tolist(), 0.3, centre=False)[0],
        reference(a.tolist(), b.tolist(), 0.3, divisor=1)[0],  # the unbiased variance
        expected / a.shape[1],  # a mean over dimensions
        same_view + 0.3 * redundancy,
        invariance + 0.3 * (redundancy + diagonal),  # with the diagonal in it
    ):
        assert abs(loss.item() - wrong) > 0.01 * loss.item()


def test_the_standardisation_is_batch_norm(embeddings):
    (a,) = embeddings(3, count=1)
    norm = torch.nn.BatchNorm1d(8, affine=False).double()
    torch.testing.assert_close(standardize(a), norm(a), rtol=1e-13, atol=1e-13)


def test_gradients_by_differences(embeddings):
    a, b = (x.requires_grad_() for x in embeddings(1, images=4, dim=3))
    objective = BarlowTwinsLoss(0.2)
    assert torch.autograd.gradcheck(lambda a, b: objective(a, b)[0], (a, b))
    gradients = torch.autograd.grad(objective(a, b)[0], (a, b))
    assert all(gradient.norm() > 1e-2 for gradient in gradients)  # both views learn: no stop-gradient


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_symmetries(embeddings, seed):
    a, b = embeddings(seed, images=7)
    objective = BarlowTwinsLoss(0.1)
    whole, _ = objective(a, b)
    order = torch.tensor([3, 0, 4, 1, 2, 6, 5])
    torch.testing.assert_close(objective(b, a)[0], whole, **CLOSE)  # C becomes its transpose
    torch.testing.assert_close(objective(a[order], b[order])[0], whole, **CLOSE)
    columns = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(objective(a[:, columns], b[:, columns])[0], whole, **CLOSE)
    shift = torch.linspace(-3, 3, 8, dtype=torch.float64)
    torch.testing.assert_close(objective(a + shift, b - shift)[0], whole, **CLOSE)
    signs = torch.where(shift > 0, 1.0, -1.0)
    torch.testing.assert_close(objective(a * signs, b * signs)[0], whole, **CLOSE)
    # the scale of a dimension matters through batch norm's epsilon alone
    torch.testing.assert_close(objective(a * 1e3, b * 1e3)[0], whole, rtol=1e-3, atol=1e-3)
    assert (objective(a[order], b)[0] - whole).abs() > 1e-6


def test_identical_whitened_views_cost_nothing(embeddings):
    (z,) = embeddings(2, count=1, images=32, dim=6)
    z = z - z.mean(0)
    values, vectors = torch.linalg.eigh(z.T @ z / len(z))
    white = z @ vectors / values.sqrt()
    loss, terms = BarlowTwinsLoss()(white, white)
    assert loss.item() < 1e-8  # epsilon leaves a correlation of 1 - 1e-5
    assert terms["correlation"].item() == pytest.approx(1, abs=2e-5)
    # and views that agree in nothing cost one per dimension
    alike = torch.ones(32, 6, dtype=torch.float64)
    assert BarlowTwinsLoss()(alike, alike)[0].item() == pytest.approx(6)
    # one dimension repeated in all: every off-diagonal correlation is 1
    repeated = white[:, :1].expand(-1, 6)
    assert BarlowTwinsLoss()(repeated, repeated)[1]["redundancy"].item() == pytest.approx(30, rel=1e-4)


def test_off_diagonal_keeps_all_but_the_diagonal():
    square = torch.arange(9.0).view(3, 3)
    assert off_diagonal(square).tolist() == [[0, 1, 2], [3, 0, 5], [6, 7, 0]]


def test_degenerate_batches_stay_finite():
    near = 1 + 1e-7 * torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    for x in (torch.ones(4, 8), torch.zeros(4, 8), near, torch.full((4, 8), 1e4), torch.eye(4, 8)):
        a, b = (x.clone().requires_grad_() for _ in range(2))
        loss, terms = BarlowTwinsLoss()(a, b)
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(value) and value.ndim == 0 and not value.requires_grad for value in terms.values())
        assert torch.isfinite(a.grad).all()
        assert torch.isfinite(b.grad).all()


def test_full_precision_under_autocast(embeddings):
    a, b = (x.bfloat16() for x in embeddings(8, images=32, dim=64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = BarlowTwinsLoss()(a, b)
    exact, _ = BarlowTwinsLoss()(a.double(), b.double())
    assert mixed.dtype == torch.float32
    assert exact.dtype == torch.float64
    torch.testing.assert_close(mixed.double(), exact, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: BarlowTwinsLoss(0.0), "off_diagonal"),
        (lambda: BarlowTwinsLoss(math.nan), "off_diagonal"),
        (lambda: BarlowTwinsLoss()(torch.ones(1, 8), torch.ones(1, 8)), "1 image"),
        (lambda: BarlowTwinsLoss()(torch.ones(4, 8), torch.ones(4, 7)), "shapes"),
        (lambda: BarlowTwinsLoss()(torch.ones(4, 8, 2), torch.ones(4, 8, 2)), "shapes"),
    ],
)
def test_refusals_name_what_is_wrong(build, word):
    with pytest.raises(UsageError, match=word) as refusal:
        build()
    assert refusal.value.next_step

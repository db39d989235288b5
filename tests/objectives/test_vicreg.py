"""VICReg against the formulas of its paper and official code, written out in loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressl.errors import UsageError
from compressl.objectives import VICRegLoss
from compressl.objectives.vicreg import covariance_penalty, variance_hinge

SEEDS = st.integers(0, 999)
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def hinge(z, epsilon=1e-4, lost=1):
    """mean_j max(0, 1 - sqrt(Var(z^j) + epsilon)), with Var over N - ``lost``."""
    total = 0.0
    for column in zip(*z, strict=True):
        mean = sum(column) / len(z)
        variance = sum((x - mean) ** 2 for x in column) / (len(z) - lost)
        total += max(0.0, 1 - math.sqrt(variance + epsilon))
    return total / len(z[0])


def covariance(z, lost=1, diagonal=False):
    """sum_{i != j} C_ij^2 / D, with C over N - ``lost``."""
    n, d = len(z), len(z[0])
    mean = [sum(column) / n for column in zip(*z, strict=True)]
    total = 0.0
    for i in range(d):
        for j in range(d):
            if i != j or diagonal:
                total += (sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in z) / (n - lost)) ** 2
    return total / d


def invariance(a, b):
    """Mean over images and dimensions of the squared difference."""
    return sum((x - y) ** 2 for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)) / len(a) / len(a[0])


def test_the_loss_is_that_of_the_official_code(embeddings):
    a, b = embeddings(0)
    a, b = 0.8 * a + 0.2, 0.7 * a + 0.5 * b  # some standard deviations above 1, some below
    A, B = a.tolist(), b.tolist()
    s, v, c = invariance(A, B), (hinge(A) + hinge(B)) / 2, covariance(A) + covariance(B)
    loss, terms = VICRegLoss()(a, b)
    assert loss.item() == pytest.approx(25 * s + 25 * v + c, rel=1e-12)
    assert [terms[name].item() for name in ("invariance", "variance", "covariance")] == pytest.approx([s, v, c])
    assert len(terms) == 3
    weighted, _ = VICRegLoss(invariance=2.0, variance=3.0, covariance=5.0, epsilon=0.04)(a, b)
    v_ = (hinge(A, 0.04) + hinge(B, 0.04)) / 2
    assert weighted.item() == pytest.approx(2 * s + 3 * v_ + 5 * c, rel=1e-12)
    for wrong in (
        25 * s + 25 * (hinge(A, lost=0) + hinge(B, lost=0)) / 2 + c,  # the biased variance
        25 * s + 25 * v + covariance(A, lost=0) + covariance(B, lost=0),
        25 * s + 25 * 2 * v + c,  # the variance summed over the views, as in the paper
        25 * s + 25 * v + c / 2,  # the covariance averaged over them
        25 * s + 25 * v + covariance(A, diagonal=True) + covariance(B, diagonal=True),
        25 * s * len(A[0]) + 25 * v + c,  # the distance summed over dimensions
    ):
        assert abs(loss.item() - wrong) > 0.01 * loss.item()


def test_gradients_by_differences(embeddings):
    a, b = (x.requires_grad_() for x in embeddings(1, images=4, dim=3))
    objective = VICRegLoss()
    assert torch.autograd.gradcheck(lambda a, b: objective(a, b)[0], (a, b))
    gradients = torch.autograd.grad(objective(a, b)[0], (a, b))
    assert all(gradient.norm() > 1e-2 for gradient in gradients)  # both views learn: no stop-gradient


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_symmetries(embeddings, seed):
    a, b = embeddings(seed)
    objective = VICRegLoss()
    whole, _ = objective(a, b)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(objective(b, a)[0], whole, **CLOSE)
    torch.testing.assert_close(objective(a[order], b[order])[0], whole, **CLOSE)
    columns = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(objective(a[:, columns], b[:, columns])[0], whole, **CLOSE)
    shift = torch.linspace(-3, 3, 8, dtype=torch.float64)
    torch.testing.assert_close(objective(a + shift, b + shift)[0], whole, **CLOSE)  # both views by the same
    assert (objective(a + shift, b)[0] - whole).abs() > 1  # one view alone: they no longer agree
    assert (objective(2 * a, 2 * b)[0] - whole).abs() > 1e-6  # nothing is normalised
    assert (objective(a[order], b)[0] - whole).abs() > 1e-6


def test_limits(embeddings):
    (z,) = embeddings(2, count=1, images=32, dim=6)
    z = z - z.mean(0)
    values, vectors = torch.linalg.eigh(z.T @ z / (len(z) - 1))
    white = z @ vectors / values.sqrt()  # unit variance (unbiased), no covariance
    loss, terms = VICRegLoss()(white, white)
    assert loss.item() == pytest.approx(0, abs=1e-20)
    assert terms["variance"].item() == 0  # the hinge is zero where every deviation reaches 1
    assert variance_hinge(3 * white, 1e-4).item() == 0
    assert variance_hinge(0.5 * white, 1e-12).item() == pytest.approx(0.5, rel=1e-9)
    alike = torch.ones(8, 4, dtype=torch.float64)
    loss, terms = VICRegLoss()(alike, alike)  # a collapse costs 25 (1 - sqrt(epsilon))
    assert loss.item() == pytest.approx(25 * 0.99)
    repeated = white[:, :1].expand(-1, 6)
    assert covariance_penalty(repeated).item() == pytest.approx(5)  # 30 ones over 6 dimensions


def test_degenerate_batches_stay_finite():
    near = 1 + 1e-7 * torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    for x in (torch.ones(4, 8), torch.zeros(4, 8), near, torch.full((4, 8), 1e3), torch.eye(4, 8)):
        a, b = (x.clone().requires_grad_() for _ in range(2))
        loss, terms = VICRegLoss()(a, b)
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(value) and value.ndim == 0 and not value.requires_grad for value in terms.values())
        assert torch.isfinite(a.grad).all()
        assert torch.isfinite(b.grad).all()


def test_full_precision_under_autocast(embeddings):
    a, b = (x.bfloat16() for x in embeddings(8, images=32, dim=64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = VICRegLoss()(a, b)
    exact, _ = VICRegLoss()(a.double(), b.double())
    assert mixed.dtype == torch.float32
    assert exact.dtype == torch.float64
    torch.testing.assert_close(mixed.double(), exact, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: VICRegLoss(invariance=-1.0), "invariance"),
        (lambda: VICRegLoss(variance=math.nan), "variance"),
        (lambda: VICRegLoss(covariance=-1.0), "covariance"),
        (lambda: VICRegLoss(epsilon=0.0), "epsilon"),
        (lambda: VICRegLoss()(torch.ones(1, 8), torch.ones(1, 8)), "1 image"),
        (lambda: VICRegLoss()(torch.ones(4, 8), torch.ones(4, 7)), "shapes"),
    ],
)
def test_refusals_name_what_is_wrong(build, word):
    with pytest.raises(UsageError, match=word) as refusal:
        build()
    assert refusal.value.next_step

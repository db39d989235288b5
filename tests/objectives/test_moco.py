"""MoCo v3 against the formula of its paper, written out in loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressl.errors import UsageError
from compressl.objectives import MoCoLoss

SEEDS = st.integers(0, 999)
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def normalised(rows):
    return [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows.tolist()]


def cross_entropy(q, k, tau, extra=None):
    """Mean over images of -log( exp(q_i k_i / tau) / sum_j exp(q_i k_j / tau) ); ``extra``: more candidates of q_i."""
    q, k = normalised(q), normalised(k)
    extra = normalised(extra) if extra is not None else []
    total = 0.0
    for i, row in enumerate(q):
        logits = [sum(x * y for x, y in zip(row, key, strict=True)) / tau for key in k]
        others = [sum(x * y for x, y in zip(row, key, strict=True)) / tau for j, key in enumerate(extra) if j != i]
        total += math.log(sum(math.exp(x) for x in logits + others)) - logits[i]
    return total / len(q)


@pytest.mark.parametrize("tau", [0.07, 0.2, 1.0])
def test_the_loss_is_the_formula_of_the_paper(embeddings, tau):
    q1, q2, k1, k2 = embeddings(0, count=4)
    forth, back = cross_entropy(q1, k2, tau), cross_entropy(q2, k1, tau)
    loss, terms = MoCoLoss(tau)((q1, q2), (k1, k2))
    official = 2 * tau * forth + 2 * tau * back  # which sums the directions
    assert 2 * loss.item() == pytest.approx(official, rel=1e-12)
    assert terms["cross_entropy"].item() == pytest.approx((forth + back) / 2, rel=1e-12)
    assert terms["mutual_information_bound"].item() == pytest.approx(math.log(5) - (forth + back) / 2, rel=1e-12)
    own_negatives = cross_entropy(q1, k2, tau, extra=k1) + cross_entropy(q2, k1, tau, extra=k2)
    same_view = cross_entropy(q1, k1, tau) + cross_entropy(q2, k2, tau)
    unscaled = (forth + back) / 2  # without the factor 2 tau
    for wrong in (tau * own_negatives, tau * same_view, 2 * tau * forth, official, unscaled):
        assert abs(loss.item() - wrong) > 1e-3


def test_gradients_by_differences_and_only_to_the_queries(embeddings):
    q1, q2, k1, k2 = (x.requires_grad_() for x in embeddings(1, count=4, images=3, dim=4))
    objective = MoCoLoss(0.3)
    assert torch.autograd.gradcheck(lambda a, b: objective((a, b), (k1.detach(), k2.detach()))[0], (q1, q2))
    gradients = torch.autograd.grad(objective((q1, q2), (k1, k2))[0], (q1, q2, k1, k2), allow_unused=True)
    assert gradients[2] is None
    assert gradients[3] is None
    # what the gradient would be if keys were queries too: another one
    shared = objective((q1, q2), (q1, q2))[0]
    (held,) = torch.autograd.grad(shared, q1)
    unit = [x / x.norm(dim=1, keepdim=True) for x in (q1, q2)]
    logits = unit[0] @ unit[1].T / 0.3
    free = 0.3 * sum(torch.nn.functional.cross_entropy(x, torch.arange(3)) for x in (logits, logits.T))
    torch.testing.assert_close(free, shared, rtol=1e-13, atol=1e-13)  # the same value
    (flowing,) = torch.autograd.grad(free, q1)
    assert (flowing - held).norm() > 0.05 * held.norm()


def test_the_gradient_at_a_unit_query(embeddings):
    """2 (sum_j softmax_ij k_j - k_i) / (2 N), projected on the sphere: free of 1 / tau."""
    q1, q2, k1, k2 = (x / x.norm(dim=1, keepdim=True) for x in embeddings(4, count=4))
    q1.requires_grad_()
    for tau in (0.1, 1.0, 100.0):
        (gradient,) = torch.autograd.grad(MoCoLoss(tau)((q1, q2), (k1, k2))[0], q1)
        pull = ((q1 @ k2.T / tau).softmax(1) @ k2 - k2) / 5
        tangent = pull - (pull * q1).sum(1, keepdim=True) * q1
        torch.testing.assert_close(gradient, tangent, rtol=1e-11, atol=1e-12)


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_symmetries(embeddings, seed):
    q1, q2, k1, k2 = embeddings(seed, count=4)
    objective = MoCoLoss()
    whole, _ = objective((q1, q2), (k1, k2))
    order = torch.tensor([3, 0, 4, 1, 2])
    scale = torch.tensor([[1e-3], [0.5], [1.0], [7.0], [1e3]], dtype=torch.float64)
    torch.testing.assert_close(objective((q2, q1), (k2, k1))[0], whole, **CLOSE)
    permuted = [x[order] for x in (q1, q2, k1, k2)]
    torch.testing.assert_close(objective(permuted[:2], permuted[2:])[0], whole, **CLOSE)
    torch.testing.assert_close(objective((q1 * scale, q2), (k1, k2 * scale))[0], whole, **CLOSE)
    assert (objective((q1[order], q2), (k1, k2))[0] - whole).abs() > 1e-6


def test_limits(embeddings):
    alike = torch.ones(6, 8, dtype=torch.float64)
    for tau in (0.2, 1.0):
        loss, terms = MoCoLoss(tau)((alike, alike), (alike, alike))
        assert loss.item() == pytest.approx(2 * tau * math.log(6), rel=1e-13)  # nothing tells the images apart
        assert terms["mutual_information_bound"].item() == pytest.approx(0, abs=1e-13)
        assert terms["contrastive_entropy"].item() == pytest.approx(math.log(6), rel=1e-13)
    apart = torch.eye(6, dtype=torch.float64)
    loss, terms = MoCoLoss(0.01)((apart, apart), (apart, apart))
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert terms["mutual_information_bound"].item() == pytest.approx(math.log(6), rel=1e-12)
    assert terms["contrastive_accuracy"].item() == terms["alignment"].item() == 1
    loss, terms = MoCoLoss(0.01)((apart, apart), (apart.roll(1, 0), apart.roll(1, 0)))
    assert terms["contrastive_accuracy"].item() == 0


def test_degenerate_batches_stay_finite():
    near = 1 + 1e-7 * torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    for x in (torch.ones(4, 8), torch.zeros(4, 8), near):
        q1, q2 = (x.clone().requires_grad_() for _ in range(2))
        loss, terms = MoCoLoss(0.05)((q1, q2), (x, x))
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(value) and value.ndim == 0 and not value.requires_grad for value in terms.values())
        assert torch.isfinite(q1.grad).all()
        assert torch.isfinite(q2.grad).all()


def test_full_precision_under_autocast(embeddings):
    x = [value.bfloat16() for value in embeddings(8, count=4, images=16, dim=256)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = MoCoLoss()((x[0], x[1]), (x[2], x[3]))
    x = [value.double() for value in x]
    exact, _ = MoCoLoss()((x[0], x[1]), (x[2], x[3]))
    assert mixed.dtype == torch.float32
    assert exact.dtype == torch.float64
    torch.testing.assert_close(mixed.double(), exact, rtol=1e-3, atol=0)


PAIR = (torch.ones(4, 8), torch.ones(4, 8))
ONE = (torch.ones(1, 8), torch.ones(1, 8))


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: MoCoLoss(0.0), "temperature"),
        (lambda: MoCoLoss(math.inf), "temperature"),
        (lambda: MoCoLoss()(ONE, ONE), "1 image"),
        (lambda: MoCoLoss()(PAIR, ONE), "shapes"),
        (lambda: MoCoLoss()(PAIR[0], PAIR), "pair"),
    ],
)
def test_refusals_name_what_is_wrong(build, word):
    with pytest.raises(UsageError, match=word) as refusal:
        build()
    assert refusal.value.next_step

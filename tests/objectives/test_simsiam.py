"""SimSiam against the formula of its paper, written out in loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressl.errors import UsageError
from compressl.objectives import SimSiamLoss

SEEDS = st.integers(0, 999)
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def one_direction(p, z):
    """Mean over images of D(p, z) = - p / ||p|| . z / ||z||."""
    total = 0.0
    for a, b in zip(p.tolist(), z.tolist(), strict=True):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        total -= dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))
    return total / len(p)


def spread(z):
    """Standard deviation of the unit rows' coordinates, averaged, times sqrt(D)."""
    rows = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in z.tolist()]
    deviations = []
    for column in zip(*rows, strict=True):
        mean = sum(column) / len(column)
        deviations.append(math.sqrt(sum((x - mean) ** 2 for x in column) / len(column)))
    return sum(deviations) / len(deviations) * math.sqrt(len(deviations))


def test_the_loss_is_the_formula_of_the_paper(embeddings):
    p1, p2, z1, z2 = embeddings(0, count=4)
    expected = one_direction(p1, z2) / 2 + one_direction(p2, z1) / 2
    loss, terms = SimSiamLoss()((p1, p2), (z1, z2))
    assert loss.item() == pytest.approx(expected, rel=1e-13)
    assert terms["alignment"].item() == pytest.approx(-expected, rel=1e-13)
    assert terms["spread"].item() == pytest.approx((spread(z1) + spread(z2)) / 2, rel=1e-13)
    # what it must not be: one direction, the sum of both, the targets of the same view, dot products of raw rows
    raw = -((p1 * z2).sum(1) + (p2 * z1).sum(1)).mean() / 2
    same_view = one_direction(p1, z1) / 2 + one_direction(p2, z2) / 2
    for wrong in (one_direction(p1, z2), 2 * expected, same_view, raw.item()):
        assert abs(loss.item() - wrong) > 0.01


def test_gradients_by_differences_and_only_where_the_paper_lets_them_flow(embeddings):
    p1, p2, z1, z2 = (value.requires_grad_() for value in embeddings(1, count=4, images=3, dim=4))
    held, free = SimSiamLoss(), SimSiamLoss(stop_gradient=False)
    assert torch.autograd.gradcheck(lambda a, b: held((a, b), (z1.detach(), z2.detach()))[0], (p1, p2))
    assert torch.autograd.gradcheck(lambda a, b, c, d: free((a, b), (c, d))[0], (p1, p2, z1, z2))
    loss, _ = held((p1, p2), (z1, z2))
    torch.testing.assert_close(loss, free((p1, p2), (z1, z2))[0], rtol=0, atol=0)  # the same value
    gradients = torch.autograd.grad(loss, (p1, p2, z1, z2), allow_unused=True)
    assert gradients[0].norm() > 1e-2
    assert gradients[1].norm() > 1e-2
    assert gradients[2] is gradients[3] is None


@given(seed=SEEDS, stop=st.booleans())
@settings(max_examples=15, deadline=None)
def test_symmetries(embeddings, seed, stop):
    p1, p2, z1, z2 = embeddings(seed, count=4)
    objective = SimSiamLoss(stop_gradient=stop)
    whole, _ = objective((p1, p2), (z1, z2))
    order = torch.tensor([3, 0, 4, 1, 2])
    scale = torch.tensor([[1e-3], [0.5], [1.0], [7.0], [1e3]], dtype=torch.float64)
    torch.testing.assert_close(objective((p2, p1), (z2, z1))[0], whole, **CLOSE)
    torch.testing.assert_close(objective((p1[order], p2[order]), (z1[order], z2[order]))[0], whole, **CLOSE)
    torch.testing.assert_close(objective((p1 * scale, p2), (z1, z2 * scale))[0], whole, **CLOSE)
    assert (objective((p1[order], p2), (z1, z2))[0] - whole).abs() > 1e-6
    assert -1 <= whole <= 1


def test_limits(embeddings):
    (z,) = embeddings(2, count=1)
    loss, terms = SimSiamLoss()((z, z), (z, z))
    assert loss.item() == pytest.approx(-1, abs=1e-14)
    assert SimSiamLoss()((-z, -z), (z, z))[0].item() == pytest.approx(1, abs=1e-14)
    alike = z[:1].expand(5, -1)
    loss, terms = SimSiamLoss()((alike, alike), (alike, alike))
    assert loss.item() == pytest.approx(-1, abs=1e-14)  # a collapse is the best that there is
    assert terms["spread"].item() == pytest.approx(0, abs=1e-12)
    wide = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(0))
    assert SimSiamLoss()((wide, wide), (wide, wide))[1]["spread"].item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("stop", [True, False])
def test_degenerate_batches_stay_finite(stop):
    for x in (torch.ones(4, 8), torch.zeros(4, 8), 1 + 1e-7 * torch.randn(4, 8), torch.ones(1, 8)):
        leaves = [x.clone().requires_grad_() for _ in range(4)]
        loss, terms = SimSiamLoss(stop_gradient=stop)((leaves[0], leaves[1]), (leaves[2], leaves[3]))
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(value) and value.ndim == 0 and not value.requires_grad for value in terms.values())
        assert all(torch.isfinite(leaf.grad).all() for leaf in leaves if leaf.grad is not None)


def test_full_precision_under_autocast(embeddings):
    x = [value.bfloat16() for value in embeddings(8, count=4, images=16, dim=256)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = SimSiamLoss()((x[0], x[1]), (x[2], x[3]))
    x = [value.double() for value in x]
    exact, _ = SimSiamLoss()((x[0], x[1]), (x[2], x[3]))
    assert mixed.dtype == torch.float32
    assert exact.dtype == torch.float64
    torch.testing.assert_close(mixed.double(), exact, rtol=1e-3, atol=0)


PAIR = (torch.ones(4, 8), torch.ones(4, 8))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((PAIR, (torch.ones(3, 8), torch.ones(3, 8))), "shapes"),
        ((PAIR, (torch.ones(4, 8), torch.ones(4, 7))), "shapes"),
        ((PAIR[0], PAIR), "pair"),
        (((torch.ones(8), torch.ones(8)), PAIR), "shapes"),
    ],
)
def test_refusals_name_what_is_wrong(arguments, word):
    with pytest.raises(UsageError, match=word) as refusal:
        SimSiamLoss()(*arguments)
    assert refusal.value.next_step

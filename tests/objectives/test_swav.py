"""SwAV against the algorithm of the paper, written out in NumPy with plain loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressl.errors import UsageError
from compressl.objectives import SwAVLoss
from compressl.objectives.swav import sinkhorn

SEEDS = st.integers(0, 999)
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def reference_sinkhorn(scores, epsilon=0.05, iterations=3, images_first=False):
    """Q is [K, B] as in the paper: prototypes to 1/K, then images to 1/B; at the end, images to 1."""
    Q = np.exp(scores.numpy() / epsilon).T
    K, B = Q.shape
    Q = Q / Q.sum()
    for _ in range(iterations):
        for axis in (0, 1) if images_first else (1, 0):
            Q = Q / Q.sum(axis=axis, keepdims=True) / (B if axis == 0 else K)
    return (Q * B).T


def log_softmax(row):
    return row - np.log(np.exp(row - row.max()).sum()) - row.max()


def reference_loss(crops, tau=0.1, queue=None, codes=reference_sinkhorn, pairs=lambda s, v: s != v):
    total = 0.0
    for s in (0, 1):
        whole = crops[s] if queue is None else torch.cat([queue[s], crops[s]])
        q = codes(whole)[-len(crops[s]) :]
        others = [v for v in range(len(crops)) if pairs(s, v)]
        for v in others:
            for n in range(len(q)):
                total -= (q[n] * log_softmax(crops[v][n].numpy() / tau)).sum() / len(q) / len(others) / 2
    return total


@pytest.fixture
def crops():
    """Cosines of two views and two small crops of 6 images with 5 prototypes, float64."""
    return draw(0)


def draw(seed, count=4, images=6, prototypes=5):
    generator = torch.Generator().manual_seed(seed)
    base = 0.6 * torch.randn(images, prototypes, generator=generator, dtype=torch.float64)
    return [
        (base + 0.3 * torch.randn(base.shape, generator=generator, dtype=torch.float64)).tanh() for _ in range(count)
    ]


@pytest.mark.parametrize(("images", "prototypes"), [(6, 5), (4, 9), (2, 2)])
@pytest.mark.parametrize(("epsilon", "iterations"), [(0.05, 3), (0.05, 1), (0.5, 7)])
def test_sinkhorn_is_the_algorithm_of_the_paper(images, prototypes, epsilon, iterations):
    scores = draw(1, 1, images, prototypes)[0]
    expected = reference_sinkhorn(scores, epsilon, iterations)
    np.testing.assert_allclose(sinkhorn(scores, epsilon, iterations).numpy(), expected, rtol=1e-11)


def test_wrong_assignments_are_told_apart(crops):
    right = sinkhorn(crops[0]).numpy()
    wrong = {
        "two iterations": reference_sinkhorn(crops[0], iterations=2),
        "four iterations": reference_sinkhorn(crops[0], iterations=4),
        "images first": reference_sinkhorn(crops[0], images_first=True),
        "each half of the batch on its own": np.concatenate([reference_sinkhorn(half) for half in crops[0].chunk(2)]),
        "both views pooled": reference_sinkhorn(torch.cat(crops[:2]))[:6],
        "plain softmax": (crops[0] / 0.05).softmax(1).numpy(),
    }
    for name, q in wrong.items():
        assert np.abs(q - right).max() > 1e-3, name


@given(seed=SEEDS, images=st.integers(1, 9), prototypes=st.integers(2, 9), iterations=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_every_image_is_assigned_once(seed, images, prototypes, iterations):
    q = sinkhorn(draw(seed, 1, images, prototypes)[0], 0.05, iterations)
    assert (q >= 0).all()
    torch.testing.assert_close(q.sum(1), torch.ones(images, dtype=torch.float64), **CLOSE)


@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_in_the_limit_all_prototypes_are_used_alike(seed):
    q = sinkhorn(draw(seed)[0], 0.1, 2000)
    torch.testing.assert_close(q.sum(0), torch.full((5,), 6 / 5, dtype=torch.float64), rtol=1e-6, atol=1e-6)


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_symmetries_of_the_assignment(seed):
    scores = draw(seed)[0]
    q = sinkhorn(scores)
    images, prototypes = torch.tensor([3, 0, 5, 4, 1, 2]), torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(sinkhorn(scores[images][:, prototypes]), q[images][:, prototypes], **CLOSE)
    torch.testing.assert_close(sinkhorn(scores + 7), q, rtol=1e-10, atol=1e-12)
    # prototypes are normalised first: what is common to a column goes at once, what is common to a row does not
    offsets = torch.linspace(-1, 1, 5, dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(scores + offsets), q, rtol=1e-10, atol=1e-12)
    assert (sinkhorn(scores + torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]) - q).abs().max() > 1e-4


def test_nothing_overflows_and_no_prototype_is_lost(crops):
    scores = crops[0].float() * 1e4
    scores[:, 0] = -1e5
    q = sinkhorn(scores)
    assert torch.isfinite(q).all()
    torch.testing.assert_close(q.sum(1), torch.ones(6))
    assert q[:, 0].sum() > 0
    assert not sinkhorn(scores.requires_grad_()).requires_grad
    scores = scores.detach()
    with np.errstate(all="ignore"):
        assert not np.isfinite(reference_sinkhorn(scores)).all()


@pytest.mark.parametrize("count", [2, 3, 4])
def test_loss_and_gradient(crops, count):
    crops = [crop.requires_grad_() for crop in crops[:count]]
    loss, terms = SwAVLoss()(crops)
    plain = [crop.detach() for crop in crops]
    assert loss.item() == pytest.approx(reference_loss(plain), rel=1e-12)
    q = [reference_sinkhorn(x) for x in plain[:2]]
    for v, gradient in enumerate(torch.autograd.grad(loss, crops)):
        # of -q log softmax(x / tau): (p - q) / tau, over N images, V - 1 crops and two views; none through q
        p = np.exp([log_softmax(row / 0.1) for row in plain[v].numpy()])
        expected = sum((p - q[s]) / 0.1 / 6 / (count - 1) / 2 for s in (0, 1) if s != v)
        np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-10, atol=1e-14)
    assert terms["cross_entropy"].item() == loss.item()
    rows = np.concatenate(q)
    assert terms["assignment_entropy"].item() == pytest.approx(-(rows * np.log(rows)).sum(1).mean(), rel=1e-12)
    marginal = rows.mean(0)
    assert terms["marginal_entropy"].item() == pytest.approx(-(marginal * np.log(marginal)).sum(), rel=1e-12)


def test_other_temperatures(crops):
    loss, _ = SwAVLoss(temperature=0.3, epsilon=0.2, iterations=5)(crops)
    codes = lambda scores: reference_sinkhorn(scores, 0.2, 5)  # noqa: E731
    assert loss.item() == pytest.approx(reference_loss(crops, tau=0.3, codes=codes), rel=1e-12)


def test_the_queue_takes_part_in_the_assignment_alone(crops):
    queue = draw(7, 2, images=11)
    loss, terms = SwAVLoss()(crops, queue)
    expected = reference_loss(crops, queue=queue)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    rows = np.concatenate([reference_sinkhorn(torch.cat([queue[s], crops[s]]))[-6:] for s in (0, 1)])
    assert terms["assignment_entropy"].item() == pytest.approx(-(rows * np.log(rows)).sum(1).mean(), rel=1e-12)
    assert abs(reference_loss(crops) - expected) > 1e-3
    assert abs(SwAVLoss()(crops, queue[::-1])[0].item() - expected) > 1e-3
    shuffled = [x[torch.randperm(11, generator=torch.Generator().manual_seed(0))] for x in queue]
    torch.testing.assert_close(SwAVLoss()(crops, shuffled)[0], loss, **CLOSE)


def test_wrong_losses_are_told_apart(crops):
    right = reference_loss(crops)
    wrong = {
        "own crop too": reference_loss(crops, pairs=lambda s, v: True),
        "views only": reference_loss(crops, pairs=lambda s, v: v == 1 - s),
        "small crops only": reference_loss(crops, pairs=lambda s, v: v > 1),
        "softmax codes": reference_loss(crops, codes=lambda x: (x / 0.05).softmax(1).numpy()),
        "per shard": reference_loss(crops, codes=lambda x: np.concatenate([reference_sinkhorn(h) for h in x.chunk(2)])),
    }
    for name, value in wrong.items():
        assert abs(value - right) > 1e-3, name
    assert abs(SwAVLoss()(crops[::-1])[0].item() - right) > 1e-3  # codes from the small crops


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_symmetries_and_bounds_of_the_loss(seed):
    crops = draw(seed)
    loss, terms = SwAVLoss()(crops)
    order, prototypes = torch.tensor([3, 0, 5, 4, 1, 2]), torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(SwAVLoss()([crop[order][:, prototypes] for crop in crops])[0], loss, **CLOSE)
    torch.testing.assert_close(SwAVLoss()([crops[1], crops[0], crops[3], crops[2]])[0], loss, **CLOSE)
    assert 0 <= terms["assignment_entropy"] <= terms["cross_entropy"]  # a cross-entropy is at least the entropy
    assert terms["assignment_entropy"] - 1e-12 <= terms["marginal_entropy"] <= math.log(5) + 1e-12
    broken = [crops[0], crops[1][order], *crops[2:]]
    assert (SwAVLoss()(broken)[0] - loss).abs() > 1e-6


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_a_collapse_costs_log_k_and_stays_finite(value):
    crops = [torch.full((4, 6), value).requires_grad_() for _ in range(3)]
    loss, terms = SwAVLoss()(crops)
    loss.backward()
    for entropy in (loss, terms["assignment_entropy"], terms["marginal_entropy"]):
        assert entropy.item() == pytest.approx(math.log(6), rel=1e-5)
    assert all(torch.isfinite(crop.grad).all() for crop in crops)
    near = [(crop.detach() + 1e-6 * torch.randn(4, 6)).requires_grad_() for crop in crops]
    loss, _ = SwAVLoss()(near)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(crop.grad).all() for crop in near)


def test_full_precision_under_autocast():
    crops = [crop.bfloat16() for crop in draw(3, 4, 32, 20)]
    queue = [x.bfloat16() for x in draw(4, 2, 48, 20)]
    exact, _ = SwAVLoss()([crop.double() for crop in crops], [x.double() for x in queue])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, terms = SwAVLoss()(crops, queue)
    assert loss.dtype == torch.float32
    assert abs(loss.item() / exact.item() - 1) < 1e-3
    assert all(value.dtype == torch.float32 and not value.requires_grad for value in terms.values())


TWO = [torch.zeros(4, 6), torch.zeros(4, 6)]


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: SwAVLoss(temperature=0.0), "temperature"),
        (lambda: SwAVLoss(epsilon=-1.0), "epsilon"),
        (lambda: SwAVLoss(epsilon=math.nan), "epsilon"),
        (lambda: SwAVLoss(iterations=0), "iterations"),
        (lambda: SwAVLoss()(TWO[:1]), "two views"),
        (lambda: SwAVLoss()(torch.zeros(2, 4, 6)), "two views"),
        (lambda: SwAVLoss()([*TWO, torch.zeros(3, 6)]), "shapes"),
        (lambda: SwAVLoss()(TWO, TWO[:1]), "pair"),
        (lambda: SwAVLoss()(TWO, torch.zeros(2, 9, 6)), "pair"),
        (lambda: SwAVLoss()(TWO, [torch.zeros(9, 6), torch.zeros(8, 6)]), "shapes"),
        (lambda: SwAVLoss()(TWO, [torch.zeros(9, 5), torch.zeros(9, 5)]), "5 prototypes, the batch against 6"),
        (lambda: SwAVLoss()([torch.zeros(1, 6), torch.zeros(1, 6)]), "one image"),
    ],
)
def test_refusals_name_what_is_wrong(build, word):
    with pytest.raises(UsageError, match=word) as refusal:
        build()
    assert refusal.value.next_step


def test_one_image_beside_a_queue_is_enough():
    loss, _ = SwAVLoss()([torch.zeros(1, 6), torch.zeros(1, 6)], [torch.zeros(3, 6), torch.zeros(3, 6)])
    assert loss.item() == pytest.approx(math.log(6), rel=1e-6)

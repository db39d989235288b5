"""DINO against the algorithm of the paper, written out in NumPy with plain loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressl.errors import UsageError
from compressl.objectives import DINOLoss

SEEDS = st.integers(0, 999)
CLOSE = {"rtol": 1e-12, "atol": 1e-12}
K = 5


def softmax(row):
    e = np.exp(row - row.max())
    return e / e.sum()


def reference_step(teacher, student, center, tau_t=0.04, tau_s=0.1, m=0.9, same=False, center_first=False):
    """The loss of one step and the centre after it."""
    teacher, student = [x.detach().numpy() for x in teacher], [x.detach().numpy() for x in student]
    new = m * center + (1 - m) * np.mean([row for view in teacher for row in view], axis=0)
    used = new if center_first else center
    losses = []
    for t in range(2):
        for s in range(len(student)):
            if s == t and not same:
                continue
            for g_t, g_s in zip(teacher[t], student[s], strict=True):
                losses.append(-(softmax((g_t - used) / tau_t) * np.log(softmax(g_s / tau_s))).sum())
    return np.mean(losses), new


def draw(seed, crops=4, images=6, scale=0.3):
    """Outputs (cosines) of the teacher for two views and of the student for all crops, float64."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(images, K, generator=generator, dtype=torch.float64)
    outputs = [
        (scale * (base + 0.5 * torch.randn(base.shape, generator=generator, dtype=torch.float64))).tanh()
        for _ in range(crops + 2)
    ]
    return outputs[:2], outputs[2:]


def objective(**options):
    return DINOLoss(K, **options).double()


@pytest.mark.parametrize("crops", [2, 3, 5])
def test_loss_and_centre_of_three_steps(crops):
    loss_of, center = objective(), np.zeros(K)
    for step in range(3):
        teacher, student = draw(step, crops)
        expected, center = reference_step(teacher, student, center)
        loss, terms = loss_of(teacher, student)
        assert loss.item() == pytest.approx(expected, rel=1e-12)
        assert terms["cross_entropy"].item() == loss.item()
        np.testing.assert_allclose(loss_of.center.numpy(), center, rtol=1e-12)
    assert np.abs(center).max() > 1e-3


def test_other_numbers():
    loss_of, center = objective(student_temperature=0.3, teacher_temperature=0.2, center_momentum=0.5), np.zeros(K)
    for step in range(2):
        teacher, student = draw(step)
        expected, center = reference_step(teacher, student, center, 0.2, 0.3, 0.5)
        assert loss_of(teacher, student)[0].item() == pytest.approx(expected, rel=1e-12)
    loss_of.teacher_temperature = 0.07  # what a schedule does
    teacher, student = draw(2)
    expected, _ = reference_step(teacher, student, center, 0.07, 0.3, 0.5)
    assert loss_of(teacher, student)[0].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("crops", [2, 4])
def test_gradient(crops):
    teacher, student = draw(0, crops)
    for x in (*teacher, *student):
        x.requires_grad_()
    loss, _ = objective()(teacher, student)
    loss.backward()
    assert all(x.grad is None for x in teacher)
    for s, x in enumerate(student):
        # of -P_t log softmax(x / tau_s): (P_s - P_t) / tau_s, over N images and 2 (V - 1) pairs
        expected = np.zeros((6, K))
        for t in range(2):
            if t != s:
                for n in range(6):
                    p_s = softmax(x[n].detach().numpy() / 0.1)
                    expected[n] += (p_s - softmax(teacher[t][n].detach().numpy() / 0.04)) / 0.1 / 6 / (2 * (crops - 1))
        np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-10, atol=1e-14)


def test_wrong_variants_are_told_apart():
    """On the second step, where the centre is no longer 0."""
    (first, _), (teacher, student) = draw(0), draw(1)
    loss_of = objective()
    loss_of(first, draw(0)[1])
    _, center = reference_step(first, draw(0)[1], np.zeros(K))
    right, after = reference_step(teacher, student, center)
    wrong = {
        "the centre after its update": reference_step(teacher, student, center, center_first=True)[0],
        "no centre": reference_step(teacher, student, np.zeros(K))[0],
        "same-view pairs kept": reference_step(teacher, student, center, same=True)[0],
        "views only": reference_step(teacher, student[:2], center)[0],
        "temperatures swapped": reference_step(teacher, student, center, 0.1, 0.04)[0],
        "targets of the same view": reference_step(teacher[::-1], student, center)[0],
        "sum over pairs": 6 * right,
    }
    assert loss_of(teacher, student)[0].item() == pytest.approx(right, rel=1e-12)
    for name, value in wrong.items():
        assert abs(value - right) > 1e-4, name
    np.testing.assert_allclose(loss_of.center.numpy(), after, rtol=1e-12)
    twice = center
    for view in teacher:  # an update after each direction
        twice = 0.9 * twice + 0.1 * view.numpy().mean(0)
    assert np.abs(twice - after).max() > 1e-3


def test_the_centre_moves_in_training_mode_alone_and_is_saved():
    loss_of = objective().eval()
    loss_of(*draw(0))
    assert not loss_of.center.any()
    loss_of.train()(*draw(0))
    assert loss_of.center.any()
    assert set(loss_of.state_dict()) == {"center"}
    assert not loss_of.center.requires_grad


def test_a_batch_spread_over_processes():
    """Two halves, each with the mean over both as ``reduce``, are one batch: loss, centre and terms."""
    whole = objective()
    teacher, student = draw(3)
    loss, terms = whole(teacher, student)
    halves = [([x.chunk(2)[r] for x in teacher], [x.chunk(2)[r] for x in student]) for r in range(2)]
    sent = [[], []]
    for r in range(2):  # first each half notes what it would send, in its order
        objective(reduce=lambda x, r=r: sent[r].append(x) or x)(*halves[r])
    losses, all_terms = [], []
    for r in range(2):
        received = iter(sent[1 - r])
        half = objective(reduce=lambda x, received=received: (x + next(received)) / 2)
        value, its_terms = half(*halves[r])
        losses.append(value)
        all_terms.append(its_terms)
        torch.testing.assert_close(half.center, whole.center, **CLOSE)
    torch.testing.assert_close(sum(losses) / 2, loss, **CLOSE)
    for name, value in terms.items():
        torch.testing.assert_close((all_terms[0][name] + all_terms[1][name]) / 2, value, **CLOSE)


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_symmetries_and_bounds(seed):
    teacher, student = draw(seed)
    loss, terms = objective()(teacher, student)
    order, outputs = torch.tensor([3, 0, 5, 4, 1, 2]), torch.tensor([4, 2, 0, 1, 3])
    moved = [[x[order][:, outputs] for x in views] for views in (teacher, student)]
    torch.testing.assert_close(objective()(*moved)[0], loss, **CLOSE)
    swapped = teacher[::-1], [student[1], student[0], student[3], student[2]]
    torch.testing.assert_close(objective()(*swapped)[0], loss, **CLOSE)
    shifted = [x + 3 for x in teacher], [x - 2 for x in student]  # a softmax knows differences only
    torch.testing.assert_close(objective()(*shifted)[0], loss, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(terms["divergence"], terms["cross_entropy"] - terms["teacher_entropy"], **CLOSE)
    assert terms["divergence"] >= 0
    assert 0 <= terms["teacher_entropy"] <= terms["marginal_entropy"] + 1e-12 <= math.log(K) + 1e-9
    assert (objective()(teacher, [student[0], student[1][order], *student[2:]])[0] - loss).abs() > 1e-6


@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_the_centre_takes_up_what_all_outputs_share(seed):
    teacher, student = draw(seed)
    offset = torch.linspace(-2, 2, K, dtype=torch.float64)
    plain, centred = objective(), objective()
    centred.center.copy_(offset)
    torch.testing.assert_close(
        centred([x + offset for x in teacher], student)[0], plain(teacher, student)[0], rtol=1e-10, atol=1e-10
    )


def test_a_student_that_says_what_the_teacher_says_diverges_by_nothing():
    (teacher, _), _ = draw(0)
    _, terms = objective()([teacher, teacher], [teacher * 0.1 / 0.04, teacher * 0.1 / 0.04])
    assert terms["divergence"].item() == pytest.approx(0, abs=1e-12)
    assert terms["teacher_entropy"] > 0.01


def test_collapses_show_in_the_terms():
    even, one = torch.zeros(4, K), torch.zeros(4, K).index_fill_(1, torch.tensor([2]), 1.0)
    _, terms = DINOLoss(K)([even, even], [even, even])
    assert terms["teacher_entropy"].item() == pytest.approx(math.log(K))
    _, terms = DINOLoss(K)([one, one], [one, one])
    assert terms["marginal_entropy"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e4])
def test_degenerate_batches_stay_finite(value):
    for noise in (0.0, 1e-6):
        x = [(torch.full((4, K), value) + noise * torch.randn(4, K)).requires_grad_() for _ in range(3)]
        loss_of = DINOLoss(K)
        for _ in range(3):
            loss, terms = loss_of(x[:2], x)
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(term) for term in terms.values())
        assert all(torch.isfinite(leaf.grad).all() for leaf in x)
        assert torch.isfinite(loss_of.center).all()


def test_full_precision_under_autocast():
    teacher, student = ([x.bfloat16() for x in views] for views in draw(5, images=32))
    exact, mixed = objective(), DINOLoss(K)
    for _ in range(2):
        expected, _ = exact([x.double() for x in teacher], [x.double() for x in student])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, terms = mixed(teacher, student)
        assert loss.dtype == mixed.center.dtype == torch.float32
        assert abs(loss.item() / expected.item() - 1) < 1e-3
        assert all(value.dtype == torch.float32 and not value.requires_grad for value in terms.values())


TWO = [torch.zeros(4, K), torch.zeros(4, K)]


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: DINOLoss(0), "dim"),
        (lambda: DINOLoss(K, student_temperature=0.0), "student_temperature"),
        (lambda: DINOLoss(K, teacher_temperature=math.inf), "teacher_temperature"),
        (lambda: DINOLoss(K, center_momentum=1.5), "center_momentum"),
        (lambda: DINOLoss(K)([*TWO, TWO[0]], TWO), "pair"),
        (lambda: DINOLoss(K)(torch.zeros(2, 4, K), TWO), "pair"),
        (lambda: DINOLoss(K)(TWO, TWO[:1]), "two views"),
        (lambda: DINOLoss(K)(TWO, [*TWO, torch.zeros(3, K)]), "shapes"),
        (lambda: DINOLoss(K + 1)(TWO, TWO), "centre of 6"),
    ],
)
def test_refusals_name_what_is_wrong(build, word):
    with pytest.raises(UsageError, match=word) as refusal:
        build()
    assert refusal.value.next_step

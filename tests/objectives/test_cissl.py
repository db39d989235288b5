"""CISSL against reference values in float64, and against plain loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressl.errors import UsageError
from compressl.objectives import CISSLLoss, SimCLRLoss
from compressl.objectives.cissl import image_cross_entropy
from compressl.objectives.common import unit

SEEDS = st.integers(0, 999)
CLOSE = {"rel": 1e-12, "abs": 1e-12}


@pytest.fixture
def rows():
    """Student and teacher rows of three images, views stacked, [6, 4], float64."""
    n = torch.arange(6, dtype=torch.float64)[:, None]
    d = torch.arange(4, dtype=torch.float64)[None, :]
    return (n * (d + 1)).cos().requires_grad_(), (n * d + n + 2 * d + 1).sin().requires_grad_()


def loss_of(temperature, students, teachers):
    return CISSLLoss(temperature)(students.chunk(2), teachers.chunk(2))[0]


def masked(logits):
    """NT-Xent: the own column is no candidate, the partner the only target."""
    images = len(logits) // 2
    without = logits.masked_fill(torch.eye(2 * images, dtype=torch.bool), -torch.inf)
    target = torch.arange(2 * images).roll(images)
    return torch.nn.functional.cross_entropy(without, target)


def test_reference_from_logits():
    n, m = (torch.arange(6, dtype=torch.float64).view(shape) for shape in ((6, 1), (1, 6)))
    logits = (n + 2 * m).sin()
    rows = image_cross_entropy(logits)
    expected = [2.216381103017, 1.759590086405, 2.431213740467, 1.649663950678, 2.458640839955, 1.500685483470]
    assert rows.tolist() == pytest.approx(expected, abs=1e-12)
    assert rows.mean().item() == pytest.approx(2.002695867332, abs=1e-12)
    # what it is easily confused with
    assert masked(logits).item() == pytest.approx(1.876149332981, abs=1e-12)
    partner = torch.nn.functional.cross_entropy(logits, torch.arange(6).roll(3))
    assert partner.item() == pytest.approx(2.045827938425, abs=1e-12)
    assert image_cross_entropy(logits.T).mean().item() == pytest.approx(2.003160382598, abs=1e-12)
    for wrong in (1.876149332981, 2.045827938425, 2.003160382598):
        assert abs(rows.mean().item() - wrong) > 1e-4


@pytest.mark.parametrize(
    ("temperature", "value", "transposed", "own_masked", "simclr", "wrt_students", "wrt_teachers"),
    [
        (
            0.07,
            *(7.173223164632, 7.131301377398, 3.985951103606),
            *((8.782127539872, 11.280828856492), 2.964665210543, 4.688237788733),
        ),
        (
            0.1,
            *(5.151575417838, 5.127660907683, 2.911086284629),
            *((6.230108923494, 7.971235654380), 1.985953778727, 3.140825988822),
        ),
        (
            0.5,
            *(1.959339796746, 1.961121816866, 1.382668625164),
            *((1.909655970247, 2.205046302603), 0.327268310138, 0.388443946790),
        ),
    ],
)
def test_reference_from_embeddings(
    rows, temperature, value, transposed, own_masked, simclr, wrt_students, wrt_teachers
):
    v, u = rows
    loss = loss_of(temperature, v, u)
    assert loss.item() == pytest.approx(value, abs=1e-11)
    assert loss_of(temperature, u, v).item() == pytest.approx(transposed, abs=1e-11)
    gradients = torch.autograd.grad(loss, (v, u))
    assert [g.norm().item() for g in gradients] == pytest.approx([wrt_students, wrt_teachers], abs=1e-11)
    # the own column masked, and SimCLR with either head on both sides, are other losses
    assert masked(unit(v) @ unit(u).T / temperature).item() == pytest.approx(own_masked, abs=1e-11)
    for head, expected in zip((v, u), simclr, strict=True):
        assert SimCLRLoss(temperature)(*head.chunk(2))[0].item() == pytest.approx(expected, abs=1e-11)
    for wrong in (transposed, own_masked, *simclr):
        assert abs(loss.item() - wrong) > 1e-3


def test_it_is_the_loop_over_anchors_and_candidates(embeddings):
    v1, v2, u1, u2 = embeddings(3, count=4)
    v, u, total = unit(torch.cat([v1, v2])), unit(torch.cat([u1, u2])), 0.0
    for n in range(10):
        logits = [(v[n] @ u[m]).item() / 0.2 for m in range(10)]
        normalizer = math.log(sum(math.exp(x) for x in logits))
        total += normalizer - (logits[n] + logits[(n + 5) % 10]) / 2
    assert CISSLLoss(0.2)((v1, v2), (u1, u2))[0].item() == pytest.approx(total / 10, **CLOSE)


def test_limits():
    one = torch.ones(3, 8, dtype=torch.float64)
    assert CISSLLoss()((one, one), (one, one))[0].item() == pytest.approx(math.log(6), **CLOSE)  # nothing is told apart
    for images, temperature, expected in [(256, 0.07, 0.693297830984), (512, 0.07, 0.693457640303)]:
        simplex = torch.eye(images, dtype=torch.float64) - 1 / images  # cosines 1 and -1 / (N - 1)
        loss, terms = CISSLLoss(temperature)((simplex, simplex), (simplex, simplex))
        assert loss.item() == pytest.approx(expected, abs=1e-11)
        assert terms["mutual_information_bound"].item() == pytest.approx(math.log(2 * images) - expected, abs=1e-11)
        assert terms["mutual_information_bound"] < math.log(images)
    images, temperature = 2560, 0.1  # the same, from the logits of two views that agree
    cosines = torch.full((2 * images, 2 * images), -1 / (images - 1), dtype=torch.float64)
    for offset in (-images, 0, images):
        cosines.diagonal(offset).fill_(1.0)
    assert image_cross_entropy(cosines / temperature).mean().item() == pytest.approx(0.802651873428, abs=1e-11)
    assert masked(torch.ones(6, 6, dtype=torch.float64)).item() == pytest.approx(math.log(5), abs=1e-12)
    perfect = torch.eye(8, dtype=torch.float64)
    assert CISSLLoss(0.01)((perfect, perfect), (perfect, perfect))[0].item() == pytest.approx(math.log(2), **CLOSE)


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_symmetries(embeddings, seed):
    v1, v2, u1, u2 = embeddings(seed, count=4)
    objective = CISSLLoss(0.1)
    whole, _ = objective((v1, v2), (u1, u2))
    order = torch.tensor([3, 0, 4, 1, 2])
    scale = torch.tensor([[1e-3], [0.5], [1.0], [7.0], [1e3]], dtype=torch.float64)
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(objective((v2, v1), (u2, u1))[0], whole, **close)
    permuted = objective((v1[order], v2[order]), (u1[order], u2[order]))[0]
    torch.testing.assert_close(permuted, whole, **close)
    scaled = objective((v1 * scale, v2 / scale), (u1 / scale, u2 * scale))[0]
    torch.testing.assert_close(scaled, whole, **close)
    assert (objective((v1, v2), (u1[order], u2))[0] - whole).abs() > 1e-6
    assert (objective((v2, v1), (u1, u2))[0] - whole).abs() < 1e-12  # both teachers are targets of either view


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_the_bound_is_below_that_of_telling_images_apart(embeddings, seed):
    """log 2N - CE <= log N + E log(p_n + p_n'), the InfoNCE bound of an image among N."""
    v1, v2, u1, u2 = embeddings(seed, count=4)
    _, terms = CISSLLoss(0.3)((v1, v2), (u1, u2))
    v, u = unit(torch.cat([v1, v2])), unit(torch.cat([u1, u2]))
    p = (v @ u.T / 0.3).softmax(1)
    image = p.diagonal() + p[torch.arange(10), torch.arange(10).roll(5)]
    assert terms["mutual_information_bound"] <= math.log(5) + image.log().mean() + 1e-12


def test_terms(embeddings):
    v1, v2, u1, u2 = (x.requires_grad_() for x in embeddings(0, count=4))
    loss, terms = CISSLLoss()((v1, v2), (u1, u2))
    assert set(terms) == {"cross_entropy", "mutual_information_bound", "contrastive_accuracy", "alignment"}
    assert all(value.ndim == 0 and not value.requires_grad for value in terms.values())
    torch.testing.assert_close(terms["cross_entropy"], loss.detach())
    across = ((unit(v1) * unit(u2)).sum(1).mean() + (unit(v2) * unit(u1)).sum(1).mean()) / 2
    torch.testing.assert_close(terms["alignment"], across.detach())
    assert all(torch.autograd.grad(loss, x, retain_graph=True)[0].norm() > 0 for x in (v1, v2, u1, u2))


def test_accuracy_leaves_the_own_view_out():
    one = torch.eye(4, 8, dtype=torch.float64)
    other = one + 0.5 * torch.eye(4, 8, dtype=torch.float64).roll(4, 1)
    _, terms = CISSLLoss()((one, other), (one, other))
    assert terms["contrastive_accuracy"] == 1  # though the own column is the best of all
    _, terms = CISSLLoss()((one, one), (one.roll(1, 0), one.roll(2, 0)))
    assert terms["contrastive_accuracy"] == 0


def test_half_precision_and_autocast(embeddings):
    x = embeddings(5, count=4, images=16, dim=64)
    rounded = [value.bfloat16().requires_grad_() for value in x]
    exact = [value.detach().double().requires_grad_() for value in rounded]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = CISSLLoss()(rounded[:2], rounded[2:])
    expected, _ = CISSLLoss()(exact[:2], exact[2:])
    assert loss.dtype == torch.float32
    assert abs(loss.item() / expected.item() - 1) < 1e-3
    gradients = torch.autograd.grad(loss, rounded), torch.autograd.grad(expected, exact)
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours.double() - theirs).norm() < 1e-2 * theirs.norm()  # gradients come back in bfloat16


def test_degenerate_batches_stay_finite():
    zeros, identical = torch.zeros(4, 8), torch.ones(4, 8)
    for x in (zeros, identical, torch.cat([zeros[:1], torch.eye(8)[:3]]), identical + 1e-6 * torch.eye(4, 8)):
        leaves = [x.clone().requires_grad_() for _ in range(4)]
        loss, terms = CISSLLoss()(leaves[:2], leaves[2:])
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(value) for value in terms.values())
        assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)


PAIR = (torch.ones(4, 8), torch.ones(4, 8))


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: CISSLLoss(0.0), "temperature"),
        (lambda: CISSLLoss(math.nan), "temperature"),
        (lambda: CISSLLoss()(PAIR[0], PAIR), "pair"),
        (lambda: CISSLLoss()(PAIR, (torch.ones(3, 8), torch.ones(3, 8))), "shapes"),
        (lambda: CISSLLoss()(PAIR, (torch.ones(4, 8), torch.ones(4, 7))), "shapes"),
        (lambda: CISSLLoss()(*[(torch.ones(1, 8), torch.ones(1, 8))] * 2), "1 image"),
    ],
)
def test_refusals_name_what_is_wrong(build, word):
    with pytest.raises(UsageError, match=word) as refusal:
        build()
    assert refusal.value.next_step

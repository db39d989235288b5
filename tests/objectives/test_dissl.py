"""DISSL against reference values in float64, and at its limits."""

import math

import pytest
import torch
from hypothesis import strategies as st

from compressl.errors import UsageError
from compressl.objectives import DISSLLoss
from compressl.objectives.dissl import marginal_entropy

SEEDS = st.integers(0, 999)
NAMES = {
    "marginal_entropy",
    "conditional_entropy",
    "mutual_information",
    "invariance_divergence",
    "distillation_divergence",
    "cross_entropy_invariance",
    "cross_entropy_distillation",
}
LOSS = 0.109360987918
TERMS = {
    "marginal_entropy": 1.721951852482,
    "cross_entropy_invariance": 2.628056100257,
    "cross_entropy_distillation": 1.967405368422,
    "conditional_entropy": 1.230912742680,
    "invariance_divergence": 1.397143357577,
    "distillation_divergence": 0.736492625742,
    "mutual_information": 1.721951852482 - 1.230912742680,
}


def tables(*formulas):
    i = torch.arange(4, dtype=torch.float64)[:, None]
    j = torch.arange(6, dtype=torch.float64)[None, :]
    return [formula(i, j).requires_grad_() for formula in formulas]


@pytest.fixture
def logits():
    """Two teacher tables and four student tables of 4 images and 6 clusters, float64."""
    teachers = tables(lambda i, j: (i + 2 * j).sin(), lambda i, j: (2 * i + j).cos())
    students = tables(
        *(lambda i, j: (2 * i + 3 * j).sin(), lambda i, j: (i - j).cos()),
        *(lambda i, j: (i * j + 1).sin(), lambda i, j: (i + j**2 / 3).cos()),
    )
    return teachers, students


@pytest.mark.parametrize("chunk", [1, 7, 13, 2**20])
def test_reference(logits, chunk):
    teachers, students = logits
    loss, terms = DISSLLoss(chunk=chunk)(teachers, students[:2])
    assert loss.item() == pytest.approx(LOSS, abs=1e-12)
    assert set(terms) == NAMES
    for name, expected in TERMS.items():
        assert terms[name].item() == pytest.approx(expected, abs=2e-12), name
    a1, a2, b1, b2 = torch.autograd.grad(loss, (*teachers, *students[:2]))
    assert torch.cat([a1, a2]).norm().item() == pytest.approx(0.796363383270, abs=1e-12)
    assert torch.cat([b1, b2]).norm().item() == pytest.approx(0.176378883725, abs=1e-12)
    assert a1[0].tolist() == pytest.approx(
        [-0.127376378336, -0.159770768498, -0.003507358518, 0.038226094682, 0.289858998474, -0.037430587804], abs=1e-12
    )
    assert a2[3].tolist() == pytest.approx(
        [0.125735480408, 0.094607251441, -0.087099315692, -0.052550830482, 0.004055403128, -0.084747988804], abs=1e-12
    )
    assert b1[0].tolist() == pytest.approx(
        [-0.053295852447, -0.007651274148, 0.009461139772, 0.025948119944, 0.007951749199, 0.017586117680], abs=1e-12
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"invariance_weight": 0.6}, -0.416250232133),
        ({"teacher_temperature": 1.0}, -0.456706429205),
        ({"entropy_weight": 0.0, "invariance_weight": 0.0}, 1.967405368422),
    ],
)
def test_reference_of_other_numbers(logits, options, expected):
    teachers, students = logits
    assert DISSLLoss(**options)(teachers, students[:2])[0].item() == pytest.approx(expected, abs=1e-12)


def test_reference_with_small_crops(logits):
    teachers, students = logits
    loss, terms = DISSLLoss()(teachers, students)
    assert loss.item() == pytest.approx(0.065787148396, abs=1e-12)
    changed = {
        "cross_entropy_distillation": 1.923831528899,
        "distillation_divergence": 1.923831528899 - TERMS["conditional_entropy"],
    }
    for name, expected in (TERMS | changed).items():
        assert terms[name].item() == pytest.approx(expected, abs=2e-12), name


def test_reference_of_equal_tables():
    a, b, c, d = tables(*[lambda i, j: (i + 2 * j).sin()] * 4)
    loss, terms = DISSLLoss()([a, b], [c, d])
    assert loss.item() == pytest.approx(-1.544772360491, abs=1e-12)
    for name, expected in {
        "marginal_entropy": 1.699617543325,
        "cross_entropy_invariance": 1.258762210907,
        "conditional_entropy": 1.258762210907,
        "cross_entropy_distillation": 1.357338220431,
        "invariance_divergence": 0.0,
        "distillation_divergence": 0.098576009524,  # the temperatures differ
    }.items():
        assert terms[name].item() == pytest.approx(expected, abs=2e-12), name


def test_wrong_variants_are_told_apart(logits):
    teachers, students = logits
    t = [(a.detach() / 0.5).softmax(1) for a in teachers]
    pooled = torch.special.entr(torch.cat(t).mean(0)).sum()
    assert pooled.item() == pytest.approx(1.744650284258, abs=1e-12)  # of both views, not of each
    apart = [torch.special.entr(x[rows].mean(0)).sum() for x in t for rows in (slice(2), slice(2, 4))]
    assert torch.stack(apart).mean().item() == pytest.approx(1.521099398927, abs=1e-12)  # of each process's images
    _, terms = DISSLLoss()(teachers, students[:2])
    for wrong in (1.744650284258, 1.521099398927):
        assert abs(terms["marginal_entropy"].item() - wrong) > 0.01
    same = sum(-(p * b.log_softmax(1)).sum(1).mean() for p, b in zip(t, students[:2], strict=True)) / 2
    assert same.item() == pytest.approx(2.018795886376, abs=1e-12)  # the student of the same view
    assert (same.item() - TERMS["conditional_entropy"]) == pytest.approx(0.787883, abs=1e-6)  # as logged officially
    assert abs(terms["cross_entropy_distillation"].item() - same.item()) > 0.01
    # a teacher that the distillation does not reach
    ours, distillation = (
        torch.cat(torch.autograd.grad(objective(teachers, students[:2])[0], teachers))
        for objective in (DISSLLoss(), DISSLLoss(entropy_weight=0.0, invariance_weight=0.0))
    )
    assert (ours - distillation).norm().item() == pytest.approx(0.705805198325, abs=1e-12)
    assert abs(ours.norm().item() - 0.705805198325) > 0.05


def test_limits():
    for clusters, beta, expected in [
        (6, 0.8, -0.895879734614),
        (16384, 0.8, -4.852030),
        (16384, 0.6, -6.792842),
    ]:
        zeros = [torch.zeros(4, clusters, dtype=torch.float64)] * 2
        loss, _ = DISSLLoss(invariance_weight=beta)(zeros, zeros)
        assert loss.item() == pytest.approx(expected, abs=1e-6 if clusters > 6 else 1e-12)
    for images, expected in [(4, -3.188477030576), (256, -12.753908), (2560, -18.049854)]:
        codes = [1e4 * torch.eye(images, max(images, 300), dtype=torch.float64)] * 2
        loss, terms = DISSLLoss()(codes, codes)
        assert loss.item() == pytest.approx(expected, abs=1e-6 if images > 4 else 1e-12)
        assert terms["mutual_information"].item() == pytest.approx(math.log(images), abs=1e-12)
    one = torch.zeros(4, 6, dtype=torch.float64)
    one[:, 2] = 1e4
    assert DISSLLoss()([one] * 2, [one] * 2)[0].item() == pytest.approx(0.0, abs=1e-12)  # collapsed


def test_the_uniform_start_is_stable_from_lambda_above_one_plus_beta():
    """L - L0 = -(C eps^2 / 2) [ (1 + beta) Var(delta) + (1 + beta - lambda) ||E delta||^2 ] for t = 1/C + eps delta."""
    generator = torch.Generator().manual_seed(0)
    images, clusters, epsilon = 5, 6, 1e-4
    delta = torch.randn(images, clusters, generator=generator, dtype=torch.float64)
    delta -= delta.mean(1, keepdim=True)
    common = delta.mean(0)
    spread = (delta - common).square().sum(1).mean()
    for lam, beta in [(2.3, 0.8), (1.8, 0.8), (1.0, 0.8)]:
        objective = DISSLLoss(lam, beta, teacher_temperature=1.0)

        def change(d, objective=objective):
            logits = (1 / clusters + epsilon * d).log()
            uniform = torch.zeros_like(logits)
            return (objective([logits] * 2, [logits] * 2)[0] - objective([uniform] * 2, [uniform] * 2)[0]).item()

        predicted = (1 + beta) * spread + (1 + beta - lam) * common.square().sum()
        assert change(delta) == pytest.approx(-clusters * epsilon**2 / 2 * predicted.item(), rel=1e-3)
        drift = change(common.expand(images, -1))  # all images alike
        assert (drift > 1e-10) == (lam > 1 + beta)
        assert (drift < -1e-10) == (lam < 1 + beta)


def test_entropy_of_an_unused_cluster_is_zero_with_a_finite_gradient():
    m = torch.tensor([[0.5, 0.5, 0.0]], requires_grad=True)
    entropy = marginal_entropy(m)
    entropy.backward()
    assert entropy.item() == pytest.approx(math.log(2), rel=1e-6)
    assert torch.isfinite(m.grad).all()
    assert m.grad[0, :2].tolist() == pytest.approx([math.log(2) - 1] * 2, rel=1e-5)


@pytest.mark.parametrize(
    ("logits", "to_uniform"),
    [
        ((1.0, 2.0, 3.0, 4.0), 0.43875739714446443),
        ((2.0, 0.0, -1.0), 0.5743456719404371),
        ((10.0, *[0.0] * 7), 2.075946807220103),
    ],
)
def test_entropy_is_what_the_divergence_from_uniform_leaves(logits, to_uniform):
    m = torch.tensor([logits], dtype=torch.float64).softmax(1)
    assert math.log(len(logits)) - marginal_entropy(m).item() == pytest.approx(to_uniform, rel=1e-14)


def test_weights_may_change_between_steps(logits):
    teachers, students = logits
    objective = DISSLLoss()
    objective.entropy_weight, objective.invariance_weight = torch.tensor(0.0), 0.0
    assert objective(teachers, students[:2])[0].item() == pytest.approx(1.967405368422, abs=1e-12)


TABLES = [torch.ones(4, 6), torch.ones(4, 6)]


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: DISSLLoss(entropy_weight=-1.0), "entropy_weight"),
        (lambda: DISSLLoss(invariance_weight=math.inf), "invariance_weight"),
        (lambda: DISSLLoss(teacher_temperature=0.0), "teacher_temperature"),
        (lambda: DISSLLoss(student_temperature=-1.0), "student_temperature"),
        (lambda: DISSLLoss(chunk=0), "chunk"),
        (lambda: DISSLLoss()(TABLES[:1], TABLES), "1 views of the teacher"),
        (lambda: DISSLLoss()(TABLES, TABLES[:1]), "1 of the student"),
        (lambda: DISSLLoss()(TABLES, [torch.ones(4, 6), torch.ones(4, 5)]), "shapes"),
        (lambda: DISSLLoss()([torch.ones(1, 6)] * 2, [torch.ones(1, 6)] * 2), "1 image"),
        (lambda: DISSLLoss()([torch.ones(4, 1)] * 2, [torch.ones(4, 1)] * 2), "1 cluster"),
    ],
)
def test_refusals_name_what_is_wrong(build, word):
    with pytest.raises(UsageError, match=word) as refusal:
        build()
    assert refusal.value.next_step

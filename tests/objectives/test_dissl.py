"""DISSL against reference values in float64, against autograd through the formula, and within its bound of memory."""

import math
from itertools import permutations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from compressl.errors import UsageError
from compressl.objectives import DISSLLoss
from compressl.objectives.dissl import code_statistics, marginal_entropy

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


def plain(teachers, students, lam=2.3, beta=0.8, tau_t=0.5, tau_s=1.0, detached=False):
    """The formula of the paper, term by term, left to autograd."""
    t = [(a / tau_t).softmax(1) for a in teachers]
    log_t = [(a / tau_t).log_softmax(1) for a in teachers]
    log_s = [(b / tau_s).log_softmax(1) for b in students]
    target = [x.detach() for x in t] if detached else t
    pairs = list(permutations(range(len(t)), 2))
    across = [(i, v) for i, v in product(range(len(t)), range(len(log_s))) if i != v]
    entropy = sum(torch.special.entr(x.mean(0)).sum() for x in t) / len(t)
    invariance = sum(-(t[i] * log_t[j]).sum(1).mean() for i, j in pairs) / len(pairs)
    distillation = sum(-(target[i] * log_s[v]).sum(1).mean() for i, v in across) / len(across)
    return distillation - lam * entropy + beta * invariance


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
    detached = torch.autograd.grad(plain(teachers, students[:2], detached=True), teachers)
    assert torch.cat(detached).norm().item() == pytest.approx(0.705805198325, abs=1e-12)
    ours = torch.autograd.grad(DISSLLoss()(teachers, students[:2])[0], teachers)
    assert abs(torch.cat(ours).norm().item() - 0.705805198325) > 0.05


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


def draw(seed, count, images=5, clusters=7):
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.randn(count, images, clusters, generator=generator, dtype=torch.float64)
    return [table.requires_grad_() for table in x]


@given(seed=SEEDS, teachers=st.integers(2, 3), crops=st.integers(0, 2), chunk=st.sampled_from([1, 14, 1000]))
@settings(max_examples=25, deadline=None)
def test_it_is_the_formula_with_all_its_gradients(seed, teachers, crops, chunk):
    x = draw(seed, 2 * teachers + crops)
    numbers = (2.5, 0.6, 0.4, 0.9)
    loss, _ = DISSLLoss(*numbers, chunk=chunk)(x[:teachers], x[teachers:])
    expected = plain(x[:teachers], x[teachers:], *numbers)
    close = {"rtol": 1e-12, "atol": 1e-13}
    torch.testing.assert_close(loss, expected, **close)
    for ours, theirs in zip(torch.autograd.grad(loss, x), torch.autograd.grad(expected, x), strict=True):
        torch.testing.assert_close(ours, theirs, **close)


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_symmetries_and_identities(seed):
    lam, beta = 2.3, 0.8
    x = draw(seed, 5)
    teachers, students = x[:2], x[2:]
    objective = DISSLLoss(lam, beta)
    loss, terms = objective(teachers, students)

    def same(teachers, students):
        torch.testing.assert_close(objective(teachers, students)[0], loss, rtol=1e-12, atol=1e-12)

    images, clusters = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([6, 2, 0, 1, 5, 3, 4])
    same(teachers[::-1], [students[1], students[0], students[2]])
    same([a[images] for a in teachers], [b[images] for b in students])
    same([a[:, clusters] for a in teachers], [b[:, clusters] for b in students])
    shift = 10 * images[:, None].double()
    same([a + shift for a in teachers], [b - shift for b in students])
    assert (objective(teachers, [students[1], students[0], students[2]])[0] - loss).abs() > 1e-8
    rebuilt = (
        (1 + beta) * terms["conditional_entropy"]
        - lam * terms["marginal_entropy"]
        + terms["distillation_divergence"]
        + beta * terms["invariance_divergence"]
    )
    torch.testing.assert_close(loss.detach(), rebuilt, rtol=1e-12, atol=1e-12)
    assert all(value.ndim == 0 and not value.requires_grad for value in terms.values())
    assert min(value.item() for value in terms.values()) > 0
    assert terms["marginal_entropy"] <= math.log(7)


def test_shares_of_a_batch_whose_marginals_are_averaged_make_the_whole():
    x = draw(1, 4, images=6)
    whole, _ = DISSLLoss()(x[:2], x[2:])
    parts = [[table[rows] for table in x] for rows in (slice(3), slice(3, 6))]
    marginals = [code_statistics(part[:2], part[2:], 0.5, 1.0)[0] for part in parts]
    together = sum(marginals) / 2  # what a mean over two processes gives to each of them
    losses = [DISSLLoss(reduce=lambda m: together)(part[:2], part[2:])[0] for part in parts]
    torch.testing.assert_close(sum(losses) / 2, whole, rtol=1e-12, atol=1e-12)
    apart = sum(DISSLLoss()(part[:2], part[2:])[0] for part in parts) / 2
    assert (apart - whole).abs() > 1e-3
    gradients = torch.autograd.grad(sum(losses) / 2, x), torch.autograd.grad(whole, x)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.fixture(scope="module")
def large():
    """Two views and a small crop at the paper's number of clusters, float64."""
    return draw(2, 5, images=6, clusters=16384)


def test_chunks_change_nothing_at_the_papers_size(large):
    results = []
    for chunk in (5000, 2 * 16384, 2**30):
        loss, terms = DISSLLoss(chunk=chunk)(large[:2], large[2:])
        results.append((loss, *torch.autograd.grad(loss, large), *terms.values()))
    for other in results[:2]:
        for value, expected in zip(other, results[2], strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_nothing_of_the_size_of_the_logits_is_kept_for_the_backward_pass(large):
    own = {x.data_ptr() for x in large}
    kept = {}

    def pack(x):
        if x.data_ptr() not in own:
            kept[x.data_ptr()] = x.numel() * x.element_size()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss, _ = DISSLLoss()(large[:2], large[2:])
    assert loss.requires_grad
    assert sum(kept.values()) < large[0].numel() * large[0].element_size() + 1000  # the marginals and their logarithms


class Largest(TorchDispatchMode):
    """How large the results of operations are, without views."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        known = {x.untyped_storage().data_ptr() for x in args if isinstance(x, torch.Tensor)}
        if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() not in known:
            self.sizes.append(out.numel())
        return out


def test_only_gradients_are_of_the_size_of_the_logits(large):
    rows = 16384
    with Largest() as forward:
        loss, _ = DISSLLoss(chunk=rows)(large[:2], large[2:])
    assert max(forward.sizes) <= 2 * rows  # a row of each table, or the two marginals
    with Largest() as backward:
        torch.autograd.grad(loss, large)
    assert sum(size > 2 * rows for size in backward.sizes) == len(large)


def test_half_precision_and_autocast():
    x = [table.detach() for table in draw(5, 4, images=8, clusters=300)]
    rounded = [table.bfloat16().requires_grad_() for table in x]
    exact = [table.detach().double().requires_grad_() for table in rounded]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, terms = DISSLLoss(chunk=700)(rounded[:2], rounded[2:])
    expected, _ = DISSLLoss()(exact[:2], exact[2:])
    assert loss.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in terms.values())
    assert abs(loss.item() / expected.item() - 1) < 1e-3
    gradients = torch.autograd.grad(loss, rounded), torch.autograd.grad(expected, exact)
    for ours, theirs in zip(*gradients, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.double() - theirs).norm() < 1e-2 * theirs.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_degenerate_batches_stay_finite(dtype):
    one = torch.zeros(4, 6)
    one[:, 2] = 1e4  # certain, and all of one cluster: the others' probability underflows to zero
    near = 80 * torch.eye(4, 6) + torch.linspace(0, 1e-3, 24).view(4, 6)
    for x in (torch.zeros(4, 6), torch.ones(4, 6), one, near, -one, 1e4 * torch.eye(4, 6)):
        leaves = [x.to(dtype).requires_grad_() for _ in range(5)]
        loss, terms = DISSLLoss()(leaves[:2], leaves[2:])
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(value) for value in terms.values())
        assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)


def test_entropy_of_an_unused_cluster_is_zero_with_a_finite_gradient():
    m = torch.tensor([[0.5, 0.5, 0.0]], requires_grad=True)
    entropy = marginal_entropy(m)
    entropy.backward()
    assert entropy.item() == pytest.approx(math.log(2), rel=1e-6)
    assert torch.isfinite(m.grad).all()
    assert m.grad[0, :2].tolist() == pytest.approx([math.log(2) - 1] * 2, rel=1e-5)


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

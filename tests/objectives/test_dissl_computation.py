"""How DISSL is computed: against autograd through the formula, within its bound of memory, at any precision."""

import math
from itertools import permutations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from compressl.objectives import DISSLLoss
from compressl.objectives.dissl import code_statistics

SEEDS = st.integers(0, 999)


def plain(teachers, students, lam=2.3, beta=0.8, tau_t=0.5, tau_s=1.0):
    """The formula of the paper, term by term, left to autograd."""
    t = [(a / tau_t).softmax(1) for a in teachers]
    log_t = [(a / tau_t).log_softmax(1) for a in teachers]
    log_s = [(b / tau_s).log_softmax(1) for b in students]
    pairs = list(permutations(range(len(t)), 2))
    across = [(i, v) for i, v in product(range(len(t)), range(len(log_s))) if i != v]
    entropy = sum(torch.special.entr(x.mean(0)).sum() for x in t) / len(t)
    invariance = sum(-(t[i] * log_t[j]).sum(1).mean() for i, j in pairs) / len(pairs)
    distillation = sum(-(t[i] * log_s[v]).sum(1).mean() for i, v in across) / len(across)
    return distillation - lam * entropy + beta * invariance


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

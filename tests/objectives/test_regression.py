"""BYOL and C-BYOL against reference values. The reference sums the two directions: twice the library's mean."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressl.errors import UsageError
from compressl.objectives import BYOLLoss, CBYOLLoss, VonMisesFisher
from compressl.objectives.common import unit

CASES = ["S", "L"]
SEEDS = st.integers(0, 999)
CLOSE = {"rel": 2e-14, "abs": 2e-12}
NAMES = {
    "regression",
    "alignment",
    "residual_information",
    "residual_information_excess",
    "forward_entropy",
    "backward_cross_entropy",
    "backward_alignment",
}


def arguments(fixed, case):
    inputs = fixed(case, 16384.0)
    mu, m = unit(inputs.X), unit(inputs.Y)
    return inputs, (inputs.P, inputs.T, (inputs.X, inputs.Y), (inputs.z(mu), inputs.z_(m)), inputs.M)


@pytest.mark.parametrize(("case", "expected"), [("S", 0.469164461163944), ("L", 0.421491120008035)])
def test_byol_reference(fixed, case, expected):
    inputs = fixed(case)
    for weight in (1.0, 5.0):
        loss, terms = BYOLLoss(weight)(inputs.P, inputs.T)
        assert 2 * loss.item() == pytest.approx(weight * expected, **CLOSE)
        assert 2 * terms["regression"].item() == pytest.approx(expected, **CLOSE)
        assert terms["alignment"].item() == pytest.approx(1 - expected / 4, **CLOSE)


@pytest.mark.parametrize(
    ("options", "small", "large"),
    [
        ({}, 46.9943535559968, 1026.90833197204),
        ({"weight": 2.0}, 45.586860172505, 1025.64385861202),
        ({"beta": 0.1}, 6.81067543083743, 104.58754323724),
        ({"beta": 0.0}, 2.34582230581972, 2.10745560004018),
        ({"analytic": True}, 46.8230036827423, 1047.00503095232),
    ],
)
def test_cbyol_reference(fixed, options, small, large):
    for case, expected in (("S", small), ("L", large)):
        _, args = arguments(fixed, case)
        assert 2 * CBYOLLoss(**options)(*args)[0].item() == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize(
    ("case", "residuals"), [("S", (22.4028400461986, 22.2456912039785)), ("L", (512.39987798376, 512.400998388242))]
)
def test_residual_information_of_each_view(fixed, case, residuals):
    inputs, (p, t, means, samples, backward) = arguments(fixed, case)
    floor = VonMisesFisher(inputs.d, 16384.0).kl_floor(VonMisesFisher(inputs.d, 10.0))
    for view, expected in enumerate(residuals):
        twice = [(x[view], x[view]) for x in (means, samples, backward)]
        _, terms = CBYOLLoss()(p, t, *twice)
        assert terms["residual_information"].item() == pytest.approx(expected, **CLOSE)
        assert terms["residual_information_excess"].item() == pytest.approx(expected - floor, abs=1e-10)
    _, terms = CBYOLLoss()(p, t, means, samples, backward)
    assert terms["residual_information"].item() == pytest.approx(sum(residuals) / 2, **CLOSE)
    assert set(terms) == NAMES
    assert all(value.ndim == 0 and not value.requires_grad for value in terms.values())
    difference = terms["backward_cross_entropy"] - terms["forward_entropy"]
    torch.testing.assert_close(difference, terms["residual_information"], rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize(
    ("case", "wrt_x", "wrt_m"),
    [
        (
            "S",
            (-0.09422768686636, -0.009099523927361, 0.6672095722089),
            (0.02400177164582, 0.01425959160602, 0.6450775084177),
        ),
        (
            "L",
            (-0.0005356955788184, -0.0004790703845232, 0.02559718436817),
            (0.000433038007871, 0.0006000538751148, 0.02565916850521),
        ),
    ],
)
def test_gradients(fixed, case, wrt_x, wrt_m):
    inputs, args = arguments(fixed, case)
    loss, _ = CBYOLLoss()(*args)
    for leaf, expected in ((inputs.X, wrt_x), (inputs.M[0], wrt_m)):
        (gradient,) = torch.autograd.grad(2 * loss, leaf, retain_graph=True)
        got = gradient[0, 0].item(), gradient[1, 3].item(), gradient.norm().item()
        assert got == pytest.approx(expected, rel=1e-11, abs=2e-13)
        assert (gradient * leaf).sum(1).abs().max() < 1e-12


def test_wrong_variants_are_told_apart(fixed):
    _, (p, t, means, samples, backward) = arguments(fixed, "S")
    right = 46.9943535559968 / 2
    objective = CBYOLLoss()
    assert abs(objective(p, t, means, samples, backward[::-1])[0].item() - right) > 0.1  # b of the other view
    assert abs(objective(p, t[::-1], means, samples, backward)[0].item() - right) > 0.1  # targets of the same view
    assert abs(objective(p, t, means, samples[::-1], backward)[0].item() - right) > 0.1  # noise of the other view
    assert abs(BYOLLoss()(p, t[::-1])[0].item() - 0.469164461163944 / 2) > 0.1


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_without_compression_it_is_byol(embeddings, seed):
    x = embeddings(seed, count=10)
    pairs = list(zip(x[::2], x[1::2], strict=True))
    compressive, terms = CBYOLLoss(beta=0.0, weight=2.0)(*pairs)
    plain, plain_terms = BYOLLoss(weight=2.0)(*pairs[:2])
    torch.testing.assert_close(compressive, plain)
    for name, value in plain_terms.items():
        torch.testing.assert_close(terms[name], value)


@given(seed=SEEDS, analytic=st.booleans())
@settings(max_examples=15, deadline=None)
def test_symmetries(embeddings, seed, analytic):
    x = embeddings(seed, count=10)
    pairs = list(zip(x[::2], x[1::2], strict=True))
    objective = CBYOLLoss(kappa_e=100.0, analytic=analytic)
    whole, _ = objective(*pairs)
    order = torch.tensor([3, 0, 4, 1, 2])
    scale = torch.tensor([[1e-3], [0.5], [1.0], [7.0], [1e3]], dtype=torch.float64)
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(objective(*(pair[::-1] for pair in pairs))[0], whole, **close)
    torch.testing.assert_close(objective(*((a[order], b[order]) for a, b in pairs))[0], whole, **close)
    torch.testing.assert_close(objective(*((a * scale, b * scale) for a, b in pairs))[0], whole, **close)


def test_the_full_loss_has_the_gradient_of_the_reduced_one(fixed):
    # per view: kappa_d (1 - yhat^T that) - beta kappa_b bdir^T z, and a constant
    inputs, (p, t, means, samples, backward) = arguments(fixed, "L")
    p = tuple(x.clone().requires_grad_() for x in p)
    full, _ = CBYOLLoss(beta=0.7)(p, t, means, samples, backward)

    def reduced(prediction, target, z, direction):
        agreement = (unit(prediction) * unit(target)).sum(1)
        return 10 * (1 - agreement) - 0.7 * 10 * (unit(direction) * z).sum(1)

    forth = reduced(p[0], t[1], samples[0], backward[0])
    back = reduced(p[1], t[0], samples[1], backward[1])
    loss = (forth + back).mean() / 2
    for leaf in (inputs.X, inputs.Y, *p, *inputs.M):
        full_gradient, reduced_gradient = (torch.autograd.grad(x, leaf, retain_graph=True)[0] for x in (full, loss))
        assert reduced_gradient.norm() > 1e-4
        assert (full_gradient - reduced_gradient).abs().max() < 1e-13
    e, b = VonMisesFisher(inputs.d, 16384.0), VonMisesFisher(inputs.d, 10.0)
    w = torch.stack([(unit(x) * z).sum(1).mean() for x, z in zip(means, samples, strict=True)]).mean()
    constant = 0.7 * (e.log_normalizer + 16384 * w - b.log_normalizer)
    torch.testing.assert_close(full - loss, constant, rtol=1e-11, atol=1e-9)


def test_where_gradients_flow(embeddings):
    x = [value.requires_grad_() for value in embeddings(3, count=8)]
    predictions, targets, means, backward = zip(x[::2], x[1::2], strict=True)
    samples = tuple(VonMisesFisher(8, 16384.0).sample(unit(mean)) for mean in means)
    loss, _ = CBYOLLoss()(predictions, targets, means, samples, backward)
    loss.backward()
    assert all(value.grad is None for value in targets)
    assert all(value.grad.norm() > 1e-3 for value in (*predictions, *means, *backward))
    x = [value.detach().requires_grad_() for value in x]
    predictions, targets, means, backward = zip(x[::2], x[1::2], strict=True)
    loss, _ = CBYOLLoss(beta=0.0)(predictions, targets, means, samples, backward)
    gradients = torch.autograd.grad(loss, backward, allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in gradients)  # m learns through R only
    loss, _ = BYOLLoss()(predictions, targets)
    loss.backward()
    assert all(value.grad is None for value in targets)


def test_means_serve_as_samples_when_evaluating(embeddings):
    x = embeddings(6, count=8)
    predictions, targets, means, backward = zip(x[::2], x[1::2], strict=True)
    _, raw = CBYOLLoss()(predictions, targets, means, means, backward)
    e = VonMisesFisher(8, 16384.0)
    assert raw["forward_entropy"].item() == pytest.approx(-e.log_scaled_normalizer)


def test_degenerate_batches_stay_finite():
    for x in (torch.ones(4, 8), torch.zeros(4, 8), torch.cat([torch.zeros(1, 8), torch.eye(8)[:3]])):
        leaves = [x.clone().requires_grad_() for _ in range(8)]
        predictions, targets, means, backward = zip(leaves[::2], leaves[1::2], strict=True)
        samples = tuple(VonMisesFisher(8, 16384.0).sample(unit(mean)) for mean in means)
        for loss, terms in (
            BYOLLoss()(predictions, targets),
            CBYOLLoss()(predictions, targets, means, samples, backward),
        ):
            loss.backward()
            assert torch.isfinite(loss)
            assert all(torch.isfinite(value) for value in terms.values())
        assert all(torch.isfinite(leaf.grad).all() for leaf in leaves if leaf.grad is not None)


def test_full_precision_under_autocast(embeddings):
    x = embeddings(8, count=8, images=16, dim=256)
    e = VonMisesFisher(256, 16384.0)

    def run(x, autocast):
        x = [value.clone().requires_grad_() for value in x]
        predictions, targets, means, backward = zip(x[::2], x[1::2], strict=True)
        generator = torch.Generator().manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            samples = tuple(e.sample(unit(mean), generator) for mean in means)
            loss, _ = CBYOLLoss()(predictions, targets, means, samples, backward)
        return loss, *torch.autograd.grad(loss, (*predictions, *means, *backward))

    exact = run(x, autocast=False)
    mixed = run([value.float() for value in x], autocast=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain, _ = BYOLLoss()((x[0].float(), x[1].float()), (x[2].float(), x[3].float()))
    assert mixed[0].dtype == plain.dtype == torch.float32
    assert (mixed[0] - exact[0]).abs() < 1e-3
    for ours, theirs in zip(mixed[1:], exact[1:], strict=True):
        assert (ours - theirs).norm() < 1e-3 * theirs.norm()
    assert (plain - BYOLLoss()((x[0], x[1]), (x[2], x[3]))[0]).abs() < 1e-5


PAIR = (torch.ones(4, 8), torch.ones(4, 8))
SHORT = (torch.ones(3, 8), torch.ones(3, 8))


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: BYOLLoss(0.0), "weight"),
        (lambda: CBYOLLoss(weight=math.nan), "weight"),
        (lambda: CBYOLLoss(kappa_e=0.0), "kappa_e"),
        (lambda: CBYOLLoss(kappa_b=0.0), "kappa_b"),
        (lambda: CBYOLLoss(beta=-1.0), "beta"),
        (lambda: BYOLLoss()(PAIR, SHORT), "shapes"),
        (lambda: BYOLLoss()(PAIR[0], PAIR), "pair"),
        (lambda: BYOLLoss()(PAIR, (PAIR[0], SHORT[0])), "shapes"),
        (lambda: CBYOLLoss()(PAIR, PAIR, PAIR, SHORT, PAIR), "shapes"),
        (lambda: CBYOLLoss()(PAIR, PAIR, SHORT, SHORT, SHORT), "3 means"),
    ],
)
def test_refusals_name_what_is_wrong(build, word):
    with pytest.raises(UsageError, match=word) as refusal:
        build()
    assert refusal.value.next_step

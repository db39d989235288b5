"""The score estimate against reference values and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressl.errors import UsageError
from compressl.objectives import stein, stein_score
from compressl.objectives.common import cosine, unit
from compressl.objectives.stein import tangent

SEEDS = st.integers(0, 999)


def rows(name):
    """The unit rows of the reference inputs, [6, 4]."""
    i, j = torch.arange(6, dtype=torch.float64)[:, None], torch.arange(4, dtype=torch.float64)
    a = (i + 2 * j).sin()
    return unit({"A": a, "B": a + 0.3 * (3 * i - j).cos(), "C": (i * j + 1).cos() + 0.2 * (i - 2 * j).sin()}[name])


def random_rows(seed, *shape):
    return unit(torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def surrogate(x, s):
    return -cosine(s, x).mean().item()


@pytest.mark.parametrize(
    ("name", "tau", "h", "tangential", "whole"),
    [
        ("A", 1.209963977276636, 2.1572536382778775, 1.5526308845929766, 5.520187251894446),
        ("B", 1.0592687708914161, 2.9413097998806847, 6.6288714915386215, 9.793596941583251),
        ("C", 0.8780219525181311, 3.173283169256498, 2.8122886350590823, 8.282876560654923),
    ],
)
def test_reference(name, tau, h, tangential, whole):
    x = rows(name)
    s = stein_score(x)
    assert stein._upper_median(1 - x @ x.T).item() == pytest.approx(tau, rel=1e-12)
    got = surrogate(x, s), tangent(s, x).norm().item(), s.norm().item()
    assert got == pytest.approx((h, tangential, whole), rel=1e-9)


def test_reference_scores():
    x = rows("B")
    s = stein_score(x)
    expected = [
        [-1.049719708303, -1.583949213551, 1.404178412058, 1.817166126652],
        [1.695862702556, -1.365606600457, 1.981100181598, -3.535809491493],
        [-3.898092909123, 2.138507712215, -0.072771727016, 1.547700930181],
        [1.079227398010, 1.252306913841, -1.783735805881, -2.225698773576],
        [-0.649209503315, 2.202952439859, -0.873014098440, 3.324640346221],
        [2.726823463985, -2.595662673251, -0.756171390185, -0.995103253965],
    ]
    assert s.flatten().tolist() == pytest.approx(np.ravel(expected), abs=1e-11)
    first = [-0.500517843999, 0.377411960183, -0.209828010840, 0.761942026785]
    assert tangent(s, x)[0].tolist() == pytest.approx(first, abs=1e-11)

    sphere = stein_score(x, estimator="sphere")
    assert sphere.norm().item() == pytest.approx(6.388257273707821, rel=1e-9)
    first = [-0.525771791410, 0.382247784619, -0.176545274274, 0.706879535980]
    last = [0.708352752838, -1.422342340871, 0.397679277737, -2.090622412695]
    assert sphere[[0, 5]].flatten().tolist() == pytest.approx(first + last, abs=1e-11)
    assert cosine(sphere, x).abs().max() < 1e-14  # tangential


def plain(x, median="upper", ridge="absolute", itself=True, repulsive=False):
    """The released estimate in loops, with the unscaled kernel and an explicit inverse; and what it is not."""
    x = x.numpy()
    n = len(x)
    distances = sorted(1 - float(np.dot(a, b)) for a in x for b in x)
    other = sorted(1 - float(np.dot(x[i], x[k])) for i in range(n) for k in range(n) if i != k)
    tau = {"upper": distances[::-1][n * n // 2 - 1], "lower": distances[(n * n - 1) // 2], "other": np.median(other)}
    tau = max(0.1, tau[median])
    kernel = np.array([[math.exp(float(np.dot(a, b)) / tau) for b in x] for a in x])
    force = np.zeros_like(x)
    for i in range(n):
        for k in range(n):
            if itself or i != k:
                force[i] += kernel[i, k] * (x[k] if repulsive else x[i]) / tau
    eta = 0.01 if ridge == "absolute" else 0.01 * math.exp(1 / tau)
    return torch.from_numpy(-np.linalg.inv(kernel + eta * np.eye(n)) @ force)


@given(seed=SEEDS, n=st.integers(2, 9), dim=st.integers(2, 6))
@settings(max_examples=20, deadline=None)
def test_it_is_the_estimate_in_loops(seed, n, dim):
    x = random_rows(seed, n, dim)
    torch.testing.assert_close(stein_score(x), plain(x), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    "variant",
    [{"median": "lower"}, {"median": "other"}, {"ridge": "relative"}, {"itself": False}, {"repulsive": True}],
    ids=str,
)
def test_wrong_variants_are_told_apart(variant):
    x = rows("B")
    s, wrong = stein_score(x), plain(x, **variant)
    assert (tangent(wrong - s, x)).norm() > 3e-3 * tangent(s, x).norm()


def test_two_orthogonal_rows(monkeypatch):
    x = torch.eye(3, dtype=torch.float64)[:2]
    a = math.e  # e^{1/tau}, tau = 1
    expected = (a + 1) / ((a + 0.01) ** 2 - 1) * torch.tensor([-(a + 0.01), 1, 0], dtype=torch.float64)
    torch.testing.assert_close(stein_score(x), torch.stack([expected, expected[[1, 0, 2]]]))
    monkeypatch.setattr(stein, "_upper_median", lambda distance: distance.new_full((1, 1), 0.5))
    expected = [-2.309792755261, 0.312173975218, 0, 0.312173975218, -2.309792755261, 0]
    assert stein_score(x).flatten().tolist() == pytest.approx(expected, abs=1e-11)


def test_orthonormal_rows():
    x = torch.eye(4, dtype=torch.float64)
    expected = [-2.731052004886, 0.577599243016, 0.577599243016, 0.577599243016]
    assert stein_score(x)[0].tolist() == pytest.approx(expected, abs=1e-11)
    x = torch.eye(128, dtype=torch.float64)
    s = stein_score(x)
    assert surrogate(x, s) == pytest.approx(74.47764409316, rel=1e-11)
    torch.testing.assert_close(tangent(s, x).norm(dim=1), torch.full((128,), 6.520093418379, dtype=torch.float64))


def test_the_entropy_cannot_leave_an_exact_collapse():
    x = torch.full((5, 4), 0.5, dtype=torch.float64)
    s = stein_score(x)
    torch.testing.assert_close(s, -9.999999092 * x, rtol=1e-8, atol=0)
    assert tangent(s, x).norm() < 1e-7


@given(seed=SEEDS, estimator=st.sampled_from(["released", "sphere"]))
@settings(max_examples=15, deadline=None)
def test_symmetries(seed, estimator):
    x = random_rows(seed, 7, 5)
    s = stein_score(x, estimator=estimator)
    close = {"rtol": 1e-9, "atol": 1e-10}
    turn, _ = torch.linalg.qr(random_rows(seed + 1, 5, 5))
    torch.testing.assert_close(stein_score(x @ turn, estimator=estimator), s @ turn, **close)
    order = torch.tensor([3, 0, 6, 4, 1, 5, 2])
    torch.testing.assert_close(stein_score(x[order], estimator=estimator), s[order], **close)
    torch.testing.assert_close(stein_score(torch.stack([x, x.flip(0)]), estimator=estimator)[1], s.flip(0), **close)


def test_each_sample_has_a_bandwidth_of_its_own():
    x = rows("B")
    groups = x.view(2, 3, 4)
    assert stein._upper_median(1 - groups @ groups.mT).flatten().tolist() == pytest.approx(
        [0.8407275864054565, 0.7742967655906764], rel=1e-12
    )
    s = stein_score(groups)
    assert [surrogate(g, t) for g, t in zip(groups, s, strict=True)] == pytest.approx(
        [2.359531248821192, 2.3876022056104653], rel=1e-9
    )


def test_the_score_is_a_constant():
    x = rows("B").requires_grad_()
    s = stein_score(x)
    assert not s.requires_grad
    (gradient,) = torch.autograd.grad(-(s * x).sum(1).mean(), x)
    torch.testing.assert_close(gradient, -s / 6, rtol=1e-15, atol=0)


def test_half_precision_is_left_at_the_door():
    x = random_rows(3, 32, 64).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        s = stein_score(x)
    assert s.dtype == torch.float32
    torch.testing.assert_close(s.double(), stein_score(unit(x.double())), rtol=1e-5, atol=1e-5)


def test_the_ridge_grows_only_where_it_must():
    G = torch.ones(3, 2, 1, dtype=torch.float64)
    K = torch.stack([torch.tensor([1.0, corner], dtype=torch.float64).diag() for corner in (1.0, -0.05, -1e6)])
    eta = torch.full((3, 1, 1), 0.01, dtype=torch.float64)
    x = stein._ridge_solve(K, eta, G, certain=False).squeeze(-1)
    expected = [[1 / 1.01, 1 / 1.01], [1 / 1.1, 1 / 0.05], [0, 0]]  # as given, ten times, not to be had
    torch.testing.assert_close(x, torch.tensor(expected, dtype=torch.float64))
    x = stein._ridge_solve(K, eta, G, certain=True).squeeze(-1)
    torch.testing.assert_close(x, torch.tensor([expected[0], [0, 0], [0, 0]], dtype=torch.float64))


@pytest.mark.parametrize("estimator", ["released", "sphere"])
def test_degenerate_samples_stay_finite(estimator):
    same, zero = torch.full((8, 4), 0.5), torch.zeros(8, 4)
    for x in (same, zero, torch.cat([zero[:4], same[:4]]), unit(same + 1e-7 * random_rows(0, 8, 4).float())):
        for options in ({}, {"min_bandwidth": 1e-3}, {"min_bandwidth": 1e-3, "ridge": 1e-30}):
            assert torch.isfinite(stein_score(x, estimator=estimator, **options)).all()


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: stein_score(torch.ones(1, 4)), "at least 2"),
        (lambda: stein_score(torch.ones(4)), "shape"),
        (lambda: stein_score(torch.eye(4), ridge=0.0), "ridge"),
        (lambda: stein_score(torch.eye(4), min_bandwidth=-1.0), "min_bandwidth"),
        (lambda: stein_score(torch.eye(4), estimator="flat"), "released, sphere"),
    ],
)
def test_refusals_name_what_is_wrong(build, word):
    with pytest.raises(UsageError, match=word) as refusal:
        build()
    assert refusal.value.next_step

"""The score estimate beside its relatives: other kernels, a cut-off for the ridge, points out of the sample."""

import math

import numpy as np
import pytest
import torch

from compressl.objectives import stein, stein_score
from compressl.objectives.common import cosine, unit


def raw(name):
    """The reference inputs, [6, 4]."""
    i, j = torch.arange(6, dtype=torch.float64)[:, None], torch.arange(4, dtype=torch.float64)
    a = (i + 2 * j).sin()
    return {"A": a, "B": a + 0.3 * (3 * i - j).cos(), "C": (i * j + 1).cos() + 0.2 * (i - 2 * j).sin()}[name]


def sphere_kernel(x, tau=None):
    """K_ij = exp(x_i^T x_j / tau) and G_i = sum_k grad_{x_k} K_ik, unscaled."""
    C = x @ x.T
    tau = stein._upper_median(1 - C) if tau is None else tau
    K = (C / tau).exp()
    return K, K.sum(1, keepdim=True) * x / tau


def gaussian_kernel(x, width=None):
    """K_ij = exp(-||x_i - x_j||^2 / (2 sigma^2)) and G_i, sigma the upper median of the distances, of [..., n, D]."""
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    sigma = stein._upper_median(distance) if width is None else width
    K = (-distance.square() / (2 * sigma**2)).exp()
    return K, (K.sum(-1, keepdim=True) * x - K @ x) / sigma**2


def ridge(K, G, eta):
    return -stein._ridge_solve(K, torch.full((*K.shape[:-2], 1, 1), eta, dtype=K.dtype), G, certain=False)


def spectral(K, G, filter):
    """-U f(l) U^T G with K = U diag(l) U^T, the largest eigenvalue first: a ridge is f(l) = 1 / (l + eta)."""
    values, vectors = (x.flip(-1) for x in torch.linalg.eigh(K))
    return -vectors @ (filter(values)[:, None] * (vectors.T @ G))


@pytest.mark.parametrize(
    ("name", "total", "trace", "smallest", "largest"),
    [
        ("A", 42.616436072386065, 13.711437724938165, 0.125502363507, 7.112088045758),
        ("B", 44.110602744629986, 15.42218313405007, 0.435218228697, 7.366654698577),
        ("C", 50.76395826219673, 18.74042877738386, 1.066276774601, 8.476643817340),
    ],
)
def test_the_kernel_and_its_spectrum(name, total, trace, smallest, largest):
    x = unit(raw(name))
    K, G = sphere_kernel(x)
    spectrum = torch.linalg.eigvalsh(K)
    assert (K.sum().item(), K.trace().item()) == pytest.approx((total, trace), rel=1e-12)
    assert spectrum[[0, -1]].tolist() == pytest.approx([smallest, largest], rel=1e-9)
    if name == "B":
        first = [2.570363855675, 1.162253413561, 0.877845659630, 0.392858720431, 0.732267977218, 1.082109316781]
        assert K[0].tolist() == pytest.approx(first, rel=1e-11)
    torch.testing.assert_close(
        stein_score(x), spectral(K, G, lambda values: 1 / (values + 0.01)), rtol=1e-10, atol=1e-12
    )


def test_other_estimates_on_points_off_the_sphere():
    """The ridge of Li and Turner and the cut-off of Shi et al. 2018 (SSGE) are two filters of one spectrum."""
    x = raw("B")
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    assert stein._upper_median(distance).item() == pytest.approx(2.1980615506472123, rel=1e-12)
    K, G = gaussian_kernel(x)
    for s, h, first, last in [
        (
            ridge(K, G, 0.1),
            1.9151868617000893,
            (-0.479135064233, -0.886193764350, 0.647821687937, 0.780838685976),
            (1.077965679213, -0.985835571310, -0.366652859183, -0.393968344191),
        ),
        (
            spectral(K, G, lambda values: torch.cat([1 / values[:3], torch.zeros(3)])),
            1.6075939299348672,
            (-0.161489215799, -1.175428786757, 0.974724773009, 0.523237480056),
            (0.577775190757, -0.392526911285, -0.303090116806, 0.640179090678),
        ),
    ]:
        assert -cosine(s, x).mean().item() == pytest.approx(h, rel=1e-9)
        assert s[[0, 5]].flatten().tolist() == pytest.approx(first + last, abs=1e-11)
    torch.testing.assert_close(
        ridge(K, G, 0.1), spectral(K, G, lambda values: 1 / (values + 0.1)), rtol=1e-10, atol=1e-12
    )


def test_on_the_sphere_a_gaussian_kernel_differs_by_the_attraction_alone():
    """exp(-||x - y||^2 / 2 tau) is the kernel scaled; its gradient has the term K X that the sphere makes radial."""
    x = unit(raw("B"))
    tau = stein._upper_median(1 - x @ x.T)
    K, G = gaussian_kernel(x, width=tau.sqrt())
    eta = 0.01 * math.exp(-1 / tau.item())
    released = stein_score(x)
    torch.testing.assert_close(released, ridge(K, G + K @ x / tau, eta), rtol=1e-12, atol=1e-12)
    assert (released - ridge(K, G, eta)).norm() > 0.1 * released.norm()


def test_a_point_out_of_the_sample(monkeypatch):
    """It joins the sample: the bordered system, solved by its Schur complement, is the estimate of one more row."""
    x, new = unit(raw("B")), torch.full((1, 4), 0.5, dtype=torch.float64)
    tau = stein._upper_median(1 - x @ x.T)
    K, _ = sphere_kernel(x, tau)
    k = (x @ new.T / tau).exp()  # [n, 1]
    own = math.exp(1 / tau.item())
    g = k * x / tau  # g_q = grad_x K(x_q, x)     [n, D]
    h = (k.sum() + own) * new / tau  # h_x, its own gradient among them     [1, D]
    solved = torch.linalg.solve(K + 0.01 * torch.eye(6, dtype=torch.float64), torch.cat([k, g], 1))  # A^{-1} [k, g]
    schur = own + 0.01 - k.T @ solved[:, :1]
    s = -(h + k.T @ stein_score(x) - k.T @ solved[:, 1:]) / schur
    expected = [-2.159541771315, -2.738981323504, -2.947584409287, -1.235472726643]
    assert s[0].tolist() == pytest.approx(expected, abs=1e-10)
    flat = -(k.T @ stein_score(x) - (k.T @ solved[:, :1] + 1) * g.sum(0)) / schur  # for kernels of x - y alone
    assert (flat - s).norm() > 0.1
    monkeypatch.setattr(stein, "_upper_median", lambda distance: tau)
    assert stein_score(torch.cat([x, new]))[-1].tolist() == pytest.approx(expected, abs=1e-10)


def test_some_rows_by_a_smaller_system():
    """S of rows e alone: -((K + eta I)^{-1} E)^T diag(r) X / tau, E their columns of the identity."""
    x = unit(raw("B"))
    K, G = sphere_kernel(x)
    columns = torch.linalg.solve(
        K + 0.01 * torch.eye(6, dtype=torch.float64), torch.eye(6, dtype=torch.float64)[:, [1, 4]]
    )
    torch.testing.assert_close(-columns.T @ G, stein_score(x)[[1, 4]], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("dim", "n", "seeds", "expected"),
    [  # for a ridge of 1, 0.1 and 0.01: relative error, its deviation over 20 seeds, cosine
        (1, 256, 20, ((0.274, 0.078, 0.964), (0.383, 0.090, 0.937), (0.536, 0.122, 0.886))),
        (1, 1024, 4, ((0.175, 0.050, 0.985), (0.225, 0.068, 0.975), (0.304, 0.087, 0.957))),
        (2, 512, 20, ((0.215, 0.038, 0.977), (0.290, 0.043, 0.961), (0.414, 0.042, 0.926))),
        (8, 256, 20, ((0.283, 0.013, 0.961), (0.467, 0.022, 0.900), (0.749, 0.028, 0.792))),
        (8, 1024, 4, ((0.223, 0.009, 0.975), (0.322, 0.011, 0.950), (0.543, 0.013, 0.877))),
        (32, 256, 20, ((0.384, 0.006, 0.962), (0.466, 0.006, 0.894), (0.763, 0.012, 0.779))),
        (32, 1024, 4, ((0.217, 0.003, 0.978), (0.453, 0.006, 0.907), (0.834, 0.011, 0.760))),
    ],
)
def test_the_score_of_a_gaussian(dim, n, seeds, expected):
    """Bandwidth and solver with a Gaussian kernel: the score is -x."""
    x = torch.stack([torch.from_numpy(np.random.default_rng(seed).standard_normal((n, dim))) for seed in range(seeds)])
    K, G = gaussian_kernel(x)
    for eta, (error, deviation, direction) in zip((1.0, 0.1, 0.01), expected, strict=True):
        s = ridge(K, G, eta)
        errors = (s + x).norm(dim=(1, 2)) / x.norm(dim=(1, 2))
        directions = -(s * x).sum((1, 2)) / s.norm(dim=(1, 2)) / x.norm(dim=(1, 2))
        # all the seeds of the reference, or fewer
        slack = 6e-4 if seeds == 20 else 4 * deviation / seeds**0.5
        assert errors.mean().item() == pytest.approx(error, abs=slack)
        assert directions.mean().item() == pytest.approx(direction, abs=6e-4 if seeds == 20 else max(slack / 2, 0.005))


@pytest.mark.parametrize(
    ("dim", "n", "strong", "weak"),
    [
        (1, 512, (0.968, 0.002), (0.998, 0.001)),
        (2, 512, (0.957, 0.002), (0.996, 0.001)),
        (8, 512, (0.925, 0.002), (0.983, 0.001)),
        (32, 512, (0.802, 0.000), (0.964, 0.001)),
        (32, 128, (0.487, 0.001), (0.897, 0.001)),
    ],
)
def test_the_gradient_of_the_entropy_of_a_scale(dim, n, strong, weak):
    """x = sigma eps has dH / dsigma = d / sigma; the estimate at sigma = 1, as a share of it, over 20 seeds."""
    x = torch.stack([torch.from_numpy(np.random.default_rng(seed).standard_normal((n, dim))) for seed in range(20)])
    K, G = gaussian_kernel(x)
    for eta, (share, deviation) in ((1.0, strong), (0.01, weak)):
        shares = -cosine(ridge(K, G, eta), x).mean(-1) / dim
        assert shares.mean().item() == pytest.approx(share, abs=6e-4)
        assert shares.std().item() == pytest.approx(deviation, abs=6e-4)

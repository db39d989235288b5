"""The score estimate on samples of laws whose score, or whose entropy's derivative, is known; and on no law at all."""

import math

import numpy as np
import pytest
import torch

from compressl.objectives import VonMisesFisher, stein, stein_score
from compressl.objectives.common import cosine, unit
from compressl.objectives.stein import tangent


def gaussian(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rms(s):
    return s.square().sum(-1).mean().sqrt().item()


SIZES = {  # dimensions: images, rms of the tangential score of uniform rows: the estimate's own noise
    64: ((32, 6.8), (128, 24.1), (512, 28.5), (2048, 40.1)),
    256: ((32, 5.1), (128, 25.8), (512, 88.1), (2048, 88.4)),
    2048: ((32, 3.5), (128, 12.2), (512, 79.3), (2048, 434.5)),
}
SURROGATES = {32: 18.9, 128: 73.4, 512: 278.4, 2048: 894.1}  # images, in 2048 dimensions: the value of h


@pytest.mark.parametrize("dim", SIZES)
def test_size_of_the_score_of_uniform_rows(dim):
    for n, expected in SIZES[dim]:
        raw = gaussian(0, n, dim)
        x, s = unit(raw), stein_score(unit(raw))
        assert rms(tangent(s, x)) == pytest.approx(expected, rel=0.1 if n == 32 else 0.05), n
        if dim == 2048:
            assert -cosine(s, x).mean().item() == pytest.approx(SURROGATES[n], rel=0.01), n
        if n < 1000:
            check_single_precision(raw)


def check_single_precision(raw):
    # float32 rows have unit length to 1e-7 only, which alone would cost up to three digits more
    x = unit(raw)
    exact, single = tangent(stein_score(x), x), tangent(stein_score(unit(raw.float())).double(), x)
    assert (single - exact).norm() < 1e-6 * exact.norm()


@pytest.mark.parametrize(
    ("spread", "tau", "alike", "size", "condition"),
    [
        (1e-4, 0.100, 1.0000, 6.1e4, 2.8e8),
        (1e-3, 0.100, 1.0000, 6.4e3, 2.8e8),
        (1e-2, 0.100, 0.9969, 7.7e2, 1.4e6),
        (0.1, 0.236, 0.760, 59, 5.6e2),
        (0.3, 0.740, 0.253, 24, 4.4e2),
        (1, 0.969, 0.029, 16, 3.7e2),
    ],
)
def test_size_of_the_score_near_a_collapse(spread, tau, alike, size, condition):
    """Rows about one direction: the score grows like 1 / spread until the ridge stops it."""
    raw = torch.eye(32, dtype=torch.float64)[0] + spread * gaussian(0, 128, 32)
    x = unit(raw)
    C = x @ x.T
    width = stein._upper_median(1 - C).clamp_min(0.1)
    assert width.item() == pytest.approx(tau, rel=0.02)
    assert (C.sum().item() - 128) / (128 * 127) == pytest.approx(alike, abs=0.01)
    assert torch.linalg.cond((C / width).exp() + 0.01 * torch.eye(128, dtype=torch.float64)).item() == pytest.approx(
        condition, rel=0.05
    )
    assert rms(tangent(stein_score(x), x)) == pytest.approx(size, rel=0.05)
    check_single_precision(raw)


def test_a_sphere_of_many_dimensions_is_flat():
    x = unit(gaussian(0, 128, 128))
    released, sphere = tangent(stein_score(x), x), stein_score(x, estimator="sphere")
    assert (released - sphere).norm() < 0.02 * sphere.norm()
    x = unit(gaussian(0, 128, 3))
    released, sphere = tangent(stein_score(x), x), stein_score(x, estimator="sphere")
    assert (released - sphere).norm() > 0.1 * sphere.norm()


SPHERES = [  # d, n, kappa, smallest bandwidth, the median tau, KDE error and direction
    (3, 512, 2.0, 0.1, 0.601, 0.63, 0.992),
    (3, 1024, 2.0, 0.1, 0.601, 0.62, 0.994),
    (8, 512, 4.0, 0.1, 0.803, 0.88, 0.992),
    (8, 512, 4.0, 2.0, 2.0, 0.95, 0.993),
    (8, 512, 4.0, 5.0, 5.0, 0.98, 0.993),
    (32, 512, 16.0, 0.1, 0.819, 0.97, 0.994),
    (128, 128, 32.0, 0.1, 0.943, 0.99, 0.933),
    (128, 1024, 32.0, 0.1, 0.943, 0.99, 0.992),
]
ACCURACIES = {  # estimator, ridge: relative error, its deviation over draws and the direction, in the order above
    ("released", 0.01): (
        *((1.28, 0.15, 0.80), (1.01, 0.13, 0.88), (2.29, 0.12, 0.47), (1.18, 0.06, 0.73), None),
        *((1.63, 0.02, 0.55), (1.09, 0.01, 0.43), (1.62, 0.01, 0.50)),
    ),
    ("released", 1.0): (
        *((0.80, 0.10, 0.93), (0.72, 0.10, 0.96), (0.78, 0.05, 0.84), (0.46, 0.03, 0.93), None),
        *((0.79, 0.01, 0.78), (0.82, 0.01, 0.58), (1.11, 0.01, 0.60)),
    ),
    ("sphere", 1.0): (
        *((0.54, 0.05, 0.88), (0.43, 0.08, 0.92), (0.81, 0.04, 0.77), (0.45, 0.02, 0.90), None),
        *((0.83, 0.01, 0.76), (0.90, 0.00, 0.58), (1.22, 0.01, 0.60)),
    ),
    ("released", 10.0): (*[None] * 4, (0.48, 0.02, 0.98), *[None] * 3),
    ("sphere", 10.0): (*[None] * 4, (0.26, 0.03, 0.98), *[None] * 3),
}
DRAWS = 4


def accuracy(s, true):
    """The relative error and the cosine of scores, each averaged over draws, [draws, n, D] twice."""
    error = (s - true).norm(dim=(1, 2)) / true.norm(dim=(1, 2))
    direction = (s * true).sum((1, 2)) / s.norm(dim=(1, 2)) / true.norm(dim=(1, 2))
    return error.mean().item(), direction.mean().item()


@pytest.mark.parametrize("row", range(len(SPHERES)), ids=lambda row: str(SPHERES[row][:4]))
def test_the_score_of_a_von_mises_fisher_law(row):
    """In single points the estimate is rough; its direction and its error, averaged over draws, are known."""
    dim, n, kappa, bandwidth, tau, kernel_error, kernel_direction = SPHERES[row]
    mean = torch.eye(dim, dtype=torch.float64)[0].expand(DRAWS, n, dim)
    x = VonMisesFisher(dim, kappa).sample(mean, torch.Generator().manual_seed(0))
    true = kappa * tangent(mean, x)
    for (estimator, ridge), rows in ACCURACIES.items():
        if rows[row] is None:
            continue
        error, deviation, direction = rows[row]
        s = tangent(stein_score(x, ridge, bandwidth, estimator), x)
        # four standard errors of such a mean, and half of the last digit that is known
        assert accuracy(s, true) == (
            pytest.approx(error, abs=4 * deviation / DRAWS**0.5 + 0.01),
            pytest.approx(direction, abs=0.03),
        ), (estimator, ridge)
    # the score of a kernel density: it points the right way, and is far too short
    C = x @ x.mT
    width = stein._upper_median(1 - C).clamp_min(bandwidth)
    assert width.mean().item() == pytest.approx(tau, abs=0.01)
    K = (C / width).exp() * (1 - torch.eye(n))
    density = tangent(K @ x / K.sum(-1, keepdim=True) / width, x)
    assert accuracy(density, true) == (
        pytest.approx(kernel_error, abs=0.02),
        pytest.approx(kernel_direction, abs=0.01),
    )


def von_mises_fisher_family(kappa, seed, n):
    """x ~ vMF(e_1, kappa) on the sphere in three dimensions and dx / dkappa, from a fixed uniform; both [n, 3]."""
    random = np.random.default_rng(seed)
    u = torch.from_numpy(random.random(n))
    v = unit(torch.from_numpy(random.standard_normal((n, 2))))
    q = u + (1 - u) * math.exp(-2 * kappa)
    w = (1 + q.log() / kappa)[:, None]
    dw = (-q.log() / kappa**2 - 2 * (1 - u) * math.exp(-2 * kappa) / (kappa * q))[:, None]
    sine = (1 - w**2).sqrt()
    return torch.cat([w, sine * v], 1), dw * torch.cat([torch.ones_like(w), -w * v / sine], 1)


COLUMNS = [("released", 0.01), ("released", 1.0), ("sphere", 0.01), ("sphere", 1.0)]


@pytest.mark.parametrize(
    ("kappa", "truth", "n", "seeds", "expected"),
    [  # in the order of the columns: dH / dkappa averaged over 50 seeds, and the deviation over seeds
        (2, -0.34795634, 128, 50, ((-0.5484, 0.0240), (-0.5311, 0.0208), (-0.3523, 0.0190), (-0.3450, 0.0172))),
        (2, -0.34795634, 1024, 4, ((-0.5476, 0.0093), (-0.5455, 0.0092), (-0.3486, 0.0071), (-0.3476, 0.0070))),
        (5, -0.19909192, 128, 50, ((-0.2571, 0.0050), (-0.2513, 0.0042), (-0.1974, 0.0010), (-0.1942, 0.0011))),
        (5, -0.19909192, 1024, 3, ((-0.2657, 0.0023), (-0.2642, 0.0021), (-0.1990, 0.0003), (-0.1985, 0.0003))),
        (10, -0.09999992, 128, 50, ((-0.1138, 0.0014), (-0.1128, 0.0012), (-0.0993, 0.0004), (-0.0987, 0.0004))),
        (10, -0.09999992, 1024, 3, ((-0.1154, 0.0006), (-0.1152, 0.0006), (-0.0999, 0.0000), (-0.0998, 0.0000))),
    ],
)
def test_the_gradient_of_a_known_entropy(kappa, truth, n, seeds, expected):
    assert -kappa * (1 / kappa**2 - 1 / math.sinh(kappa) ** 2) == pytest.approx(truth, abs=1e-8)
    x, dx = map(torch.stack, zip(*(von_mises_fisher_family(kappa, seed, n) for seed in range(seeds)), strict=True))
    got = {}
    for (estimator, ridge), (value, deviation) in zip(COLUMNS, expected, strict=True):
        score = stein_score(x, ridge, estimator=estimator)
        got[estimator, ridge] = -cosine(score, dx).mean().item()  # -mean_i S_i^T dx_i / dkappa
        slack = 5e-5 if seeds == 50 else 4 * deviation / seeds**0.5 + 1e-4  # all the seeds of the reference, or fewer
        assert got[estimator, ridge] == pytest.approx(value, abs=slack), (estimator, ridge)
    assert got["released", 0.01] != pytest.approx(truth, rel=0.1)  # it leaves out the curvature
    if n == 1024:
        assert got["released", 0.01] == pytest.approx({2: 1.57, 5: 1.33, 10: 1.15}[kappa] * truth, rel=0.03)
        assert got["sphere", 0.01] == pytest.approx(truth, rel=0.02)


ANGULAR = [  # d, m, dH / ds at s = 2; images: the estimate as a share of it, released and sphere
    (3, 1, -0.2916, {128: (1.34, 0.97), 512: (1.39, 1.00), 1024: (1.39, 1.01)}),
    (8, 2, -0.9674, {128: (1.15, 1.03), 512: (1.18, 1.00), 1024: (1.19, 1.00)}),
    (32, 8, -4.750, {128: (0.69, 0.68), 512: (0.94, 0.94), 1024: (0.99, 0.98)}),
    (128, 32, -20.16, {128: (0.21, 0.21), 512: (0.66, 0.66), 1024: (0.82, 0.82)}),
    (512, 128, -81.87, {128: (0.023, 0.024), 512: (0.21, 0.21), 1024: (0.43, 0.43)}),
]


@pytest.mark.parametrize(("dim", "stretched", "truth", "shares"), ANGULAR)
def test_the_gradient_of_the_entropy_of_an_angular_gaussian(dim, stretched, truth, shares):
    """x = n(D g) with D = diag(s, ..., s, 1, ..., 1): biased by curvature where D is small, shrunk where n is."""
    scale = torch.ones(dim, dtype=torch.float64)
    scale[:stretched] = 2.0

    def family(seed, *shape):
        g = gaussian(seed, *shape, dim)
        x = unit(scale * g)
        dg = torch.cat([g[..., :stretched], torch.zeros_like(g[..., stretched:])], -1)
        return x, tangent(dg, x) / (scale * g).norm(dim=-1, keepdim=True)  # dx / ds

    x, dx = family(0, 200_000 // dim)
    y = x / scale**2
    true = tangent(-dim * y / cosine(x, y)[:, None], x)  # the score
    contributions = -cosine(true, dx)
    assert contributions.mean().item() == pytest.approx(truth, abs=4 * contributions.std().item() / len(x) ** 0.5)
    for n, expected in shares.items():
        draws = 8 if n == 128 else 3
        x, dx = family(1, draws, n)
        for estimator, share in zip(("released", "sphere"), expected, strict=True):
            estimates = -cosine(stein_score(x, estimator=estimator), dx).mean(-1) / truth
            slack = 5 * max(estimates.std().item(), 0.1 * share / n**0.25) / draws**0.5 + 0.005
            assert estimates.mean().item() == pytest.approx(share, abs=slack), (n, estimator)

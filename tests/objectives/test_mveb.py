"""MVEB against reference values, closed forms and its own symmetries; that its entropy prevents a collapse."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressl.errors import UsageError
from compressl.objectives import BYOLLoss, MVEBLoss, VonMisesFisher, stein_score
from compressl.objectives.common import cosine, unit
from compressl.objectives.mveb import kernel_entropy, mveb, positives, uniformity
from compressl.objectives.stein import tangent

SEEDS = st.integers(0, 999)
NAMES = {"alignment", "entropy_surrogate", "score_norm", "entropy_estimate", "uniformity"}


@pytest.fixture
def inputs():
    """The reference inputs: three crops and two targets, raw [6, 4]."""
    i, j = torch.arange(6, dtype=torch.float64)[:, None], torch.arange(4, dtype=torch.float64)
    a = (i + 2 * j).sin()
    b = a + 0.3 * (3 * i - j).cos()
    c = (i * j + 1).cos() + 0.2 * (i - 2 * j).sin()
    crops = [x.requires_grad_() for x in (a, b, c)]
    return crops, ((a + 0.1 * (i + j).cos()).detach(), (b + 0.1 * (i - j).cos()).detach())


@pytest.mark.parametrize(
    ("crops", "a", "h", "expected"),
    [
        (2, 0.9572500085294144, 2.549281719079281, -0.9827428257202072),
        (3, 0.6924255772481657, 2.757282202471687, -0.7199983992728826),
    ],
)
def test_reference(inputs, crops, a, h, expected):
    online, targets = inputs
    loss, terms = MVEBLoss(group_size=6)(online[:crops], targets)
    got = loss.item(), terms["alignment"].item(), terms["entropy_surrogate"].item()
    assert got == pytest.approx((expected, a, h), rel=1e-9)
    assert set(terms) == NAMES
    assert all(value.ndim == 0 and not value.requires_grad for value in terms.values())


def test_reference_terms(inputs):
    online, targets = inputs
    z0, z1, z2 = (unit(x.detach()) for x in online)
    t = positives(tuple(unit(x) for x in targets), 3)
    agreements = [cosine(z, x).mean().item() for z, x in zip((z0, z1, z2), t, strict=True)]
    assert agreements == pytest.approx([0.9593850411199503, 0.9551149759388787, 0.16277671468566815], rel=1e-9)
    _, terms = MVEBLoss(group_size=6)(online, targets)
    C0, C1 = z0 @ z0.T, z1 @ z1.T
    entropies = kernel_entropy(C0, 4) + kernel_entropy(C1, 4)
    assert terms["entropy_estimate"].item() == pytest.approx(entropies.item() / 2)
    assert terms["uniformity"].item() == pytest.approx((uniformity(C0) + uniformity(C1)).item() / 2)
    tangential = (1.5526308845929766**2 + 6.6288714915386215**2 + 2.8122886350590823**2) / 18
    assert terms["score_norm"].item() == pytest.approx(math.sqrt(tangential), rel=1e-9)


def test_reference_of_related_quantities(inputs):
    """Alignment and uniformity (Wang and Isola), and the kernel estimate with and without the point itself."""
    z0, z1 = (unit(x.detach()) for x in inputs[0][:2])
    C = z1 @ z1.T
    assert uniformity(C).item() == pytest.approx(-2.800140197318191, rel=1e-12)
    for kappa, apart, itself in [
        (1.0, 3.1462000105598897, 2.8791788460524477),
        (10.0, 5.077895019654433, 1.004342766126817),
    ]:
        assert kernel_entropy(C, 4, kappa).item() == pytest.approx(apart, rel=1e-12)
        log_normalizer = VonMisesFisher(4, kappa).log_normalizer
        resubstituted = -log_normalizer - ((kappa * C).logsumexp(1) - math.log(6)).mean()  # far too small
        assert resubstituted.item() == pytest.approx(itself, rel=1e-12)
        assert apart - itself > 0.2
    alignment = mveb(z0[None], z1[None], z0[None], 0.0)[1]["alignment"]
    assert 2 - 2 * alignment.item() == pytest.approx(0.08352930628207726, rel=1e-12)  # E ||x - y||^2


@pytest.mark.parametrize(
    ("crops", "norms", "sums", "firsts"),
    [
        (
            2,
            (0.042449840287410466, 0.040252601769739875),
            (-0.005772281124380562, 0.0030107642713692335),
            (
                (-0.016523658917, 0.002071664948, -0.002337427251, 0.013072755110),
                (0.006099251889, -0.002190483995, 0.002093570576, -0.004099267736),
            ),
        ),
        (
            3,
            (0.02829989352494031, 0.02683506784649325, 0.0796641321356449),
            (-0.0038481874162537063, 0.002007176180912856, -0.04510116680514485),
            (
                (-0.011015772611, 0.001381109965, -0.001558284834, 0.008715170074),
                (0.004066167926, -0.001460322663, 0.001395713717, -0.002732845158),
                (-0.013436697726, -0.039286937706, 0.021360191389, 0.011016622639),
            ),
        ),
    ],
)
def test_reference_gradients(inputs, crops, norms, sums, firsts):
    online, targets = inputs
    gradients = torch.autograd.grad(MVEBLoss(group_size=6)(online[:crops], targets)[0], online[:crops])
    for got, norm, total, first in zip(gradients, norms, sums, firsts, strict=True):
        assert got.norm().item() == pytest.approx(norm, rel=1e-9)
        assert got.sum().item() == pytest.approx(total, rel=1e-9)
        assert got[0].tolist() == pytest.approx(first, abs=1e-11)


@pytest.mark.parametrize("siamese", [False, True])
def test_the_gradient_in_closed_form(inputs, siamese):
    """-(1/VN) P (t - lambda S) / |raw|; a Siamese network has the agreement twice, once in each argument."""
    (a, b, _), targets = inputs
    targets = (a, b) if siamese else targets
    gradients = torch.autograd.grad(MVEBLoss(0.3, group_size=6, estimator="sphere")([a, b], targets)[0], (a, b))
    for raw, other, got in zip((a, b), targets[::-1], gradients, strict=True):
        z, t = unit(raw.detach()), (1 + siamese) * unit(other.detach())
        S = stein_score(z, estimator="sphere")
        expected = -tangent(t - 0.3 * S, z) / 12 / raw.detach().norm(dim=1, keepdim=True)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-15)


def test_wrong_variants_are_told_apart(inputs):
    online, (t0, t1) = inputs
    right, terms = MVEBLoss(group_size=6)(online, (t0, t1))
    assert (MVEBLoss(group_size=6)(online, (t1, t0))[0] - right).abs() > 1e-3  # each view with its own target
    assert (MVEBLoss(group_size=3)(online, (t0, t1))[0] - right).abs() > 1e-3  # other groups
    assert (MVEBLoss(group_size=6, estimator="sphere")(online, (t0, t1))[0] - right).abs() > 1e-3
    z = torch.stack([unit(x) for x in online])
    t = positives((unit(t0), unit(t1)), 3)
    normalised = -cosine(z, unit(t)).mean() - 0.01 * terms["entropy_surrogate"]  # the average of both targets
    assert (normalised - right).abs() > 1e-4
    per_crop = -cosine(stein_score(z), z).mean(1)
    views_only = -terms["alignment"] - 0.01 * per_crop[:2].mean()  # the small crop without an entropy of its own
    assert (views_only - right).abs() > 1e-3
    assert (-terms["alignment"] + 0.01 * per_crop.mean() - right).abs() > 1e-2  # the sign


def test_consecutive_images_make_a_group(inputs, embeddings):
    (_, b, _), _ = inputs
    _, terms = MVEBLoss(group_size=3)([b, b], (b, b))
    assert terms["entropy_surrogate"].item() == pytest.approx((2.359531248821192 + 2.3876022056104653) / 2, rel=1e-9)
    first, second = (MVEBLoss(group_size=3)([x, x], (x, x))[0] for x in (b[:3], b[3:]))
    torch.testing.assert_close(MVEBLoss(group_size=3)([b, b], (b, b))[0], (first + second) / 2)
    a, b = embeddings(0, images=6)
    mixed = torch.tensor([0, 1, 3, 2, 4, 5])  # an exchange of images between groups is another estimate
    whole, other = (MVEBLoss(group_size=3)([x, y], (x, y))[0] for x, y in ((a, b), (a[mixed], b[mixed])))
    assert (whole - other).abs() > 1e-4


@given(seed=SEEDS, estimator=st.sampled_from(["released", "sphere"]))
@settings(max_examples=8, deadline=None)
def test_symmetries(embeddings, seed, estimator):
    a, b, c, t0, t1 = embeddings(seed, count=5, images=6)
    objective = MVEBLoss(0.1, group_size=3, estimator=estimator)
    whole, _ = objective([a, b, c], (t0, t1))
    close = {"rtol": 1e-9, "atol": 1e-10}
    torch.testing.assert_close(objective([b, a, c], (t1, t0))[0], whole, **close)
    order = torch.tensor([4, 3, 5, 2, 0, 1])  # within groups, and the groups as such
    torch.testing.assert_close(objective([x[order] for x in (a, b, c)], (t0[order], t1[order]))[0], whole, **close)
    scale = torch.tensor([[1e-3], [0.5], [1.0], [7.0], [1e3], [2.0]], dtype=torch.float64)
    scaled = objective([x * scale for x in (a, b, c)], (t0 * scale.flip(0), t1 * scale))[0]
    torch.testing.assert_close(scaled, whole, **close)
    turn, _ = torch.linalg.qr(torch.cat([a, b])[:8])
    torch.testing.assert_close(objective([x @ turn for x in (a, b, c)], (t0 @ turn, t1 @ turn))[0], whole, **close)


@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_without_entropy_it_is_a_regression_without_predictor(embeddings, seed):
    a, b, t0, t1 = embeddings(seed, count=4)
    loss, terms = MVEBLoss(0.0, group_size=5)([a, b], (t0, t1))
    torch.testing.assert_close(loss, BYOLLoss(0.5)((a, b), (t0, t1))[0] - 1)
    torch.testing.assert_close(loss, -terms["alignment"])


def test_targets_get_the_gradient_they_ask_for(embeddings):
    a, b, t0, t1 = (x.requires_grad_() for x in embeddings(3, count=4))
    loss, _ = MVEBLoss(group_size=5)([a, b], (t0, t1))
    assert all(g.norm() > 1e-3 for g in torch.autograd.grad(loss, (a, b, t0, t1)))


def test_the_entropy_estimate_of_known_laws():
    """Uniform rows: the log-area of the sphere, from above, as the kernel blurs; of a narrower law it is smaller."""
    area = math.log(4 * math.pi)
    x = unit(torch.randn(2000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    assert area - 0.01 < kernel_entropy(x @ x.T, 3).item() < area + 0.05
    law = VonMisesFisher(3, 10.0)
    x = law.sample(torch.eye(3, dtype=torch.float64)[0].expand(2000, 3), torch.Generator().manual_seed(0))
    assert law.entropy < kernel_entropy(x @ x.T, 3).item() < law.entropy + 0.5
    same = torch.ones(5, 5, dtype=torch.float64)  # cosines of equal rows
    assert kernel_entropy(same, 3).item() == pytest.approx(-law.log_scaled_normalizer)
    assert uniformity(same).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("estimator", ["released", "sphere"])
def test_degenerate_batches_stay_finite(estimator):
    random = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    same, zero = torch.ones(8, 16), torch.zeros(8, 16)
    for x in (same, zero, torch.cat([zero[:1], random[:7]]), same + 1e-4 * random, 1e-8 * random, 1e4 * random):
        for dtype in (torch.float32, torch.bfloat16):
            leaves = [x.to(dtype).clone().requires_grad_() for _ in range(3)]
            for targets in ((x, x), (leaves[0], leaves[1])):
                loss, terms = MVEBLoss(group_size=4, estimator=estimator)(leaves, targets)
                gradients = torch.autograd.grad(loss, leaves)
                assert all(torch.isfinite(value).all() for value in (loss, *terms.values(), *gradients))


def test_full_precision_under_autocast(embeddings):
    *x, t0, t1 = (x.bfloat16() for x in embeddings(7, count=5, images=32, dim=64))

    def run(online, targets, autocast):
        online = [value.clone().requires_grad_() for value in online]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss, _ = MVEBLoss(group_size=16)(online, targets)
        return loss, *torch.autograd.grad(loss, online)

    exact = run([value.double() for value in x], (t0.double(), t1.double()), autocast=False)
    half = run(x, (t0, t1), autocast=True)
    single = run([value.float() for value in x], (t0.float(), t1.float()), autocast=True)
    assert exact[0].dtype == torch.float64
    assert half[0].dtype == single[0].dtype == torch.float32
    for loss in (half[0], single[0]):
        assert (loss - exact[0]).abs() < 1e-5 * exact[0].abs()
    for ours, theirs in zip(single[1:], exact[1:], strict=True):
        assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def train(entropy_weight, steps=80):
    """The mean cosine between images and the agreement of their views at the end, of a small Siamese network."""
    torch.manual_seed(0)
    centres = 2 * torch.randn(20, 32)
    network = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    objective = MVEBLoss(entropy_weight, group_size=64)
    for _ in range(steps):
        images = centres[torch.randint(20, (64,))] + 0.5 * torch.randn(64, 32)
        views = [network(images + torch.randn(64, 32)) for _ in range(2)]
        loss, terms = objective(views, (views[0], views[1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    z = unit(views[0].detach())
    return ((z @ z.T).sum().item() - 64) / (64 * 63), terms["alignment"].item()


def test_the_entropy_alone_prevents_a_collapse():
    cosine_without, _ = train(0.0)
    assert cosine_without > 0.9
    cosine_with, alignment = train(0.01)
    assert abs(cosine_with) < 0.1
    assert alignment > 0.8


ROWS = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
VIEWS, SHORT = (ROWS, ROWS), (ROWS[:7], ROWS[:7])


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: MVEBLoss(-0.01), "entropy_weight"),
        (lambda: MVEBLoss(ridge=0.0), "ridge"),
        (lambda: MVEBLoss(min_bandwidth=math.nan), "min_bandwidth"),
        (lambda: MVEBLoss(estimator="euclidean"), "estimator"),
        (lambda: MVEBLoss(group_size=1), "group_size"),
        (lambda: MVEBLoss(group_size=2)((ROWS[:1], ROWS[:1]), (ROWS[:1], ROWS[:1])), "1 image"),
        (lambda: MVEBLoss()(VIEWS, VIEWS), "at least 128, or a group_size of 8 or less"),
        (lambda: MVEBLoss(group_size=3)(VIEWS, VIEWS), "batch of 6 or 9, or a group_size of 2"),
        (lambda: MVEBLoss(group_size=6)(SHORT, SHORT), "batch of 6 or 12.$"),
        (lambda: MVEBLoss(group_size=4)(VIEWS[:1], VIEWS), "two views"),
        (lambda: MVEBLoss(group_size=4)(ROWS, VIEWS), "shapes"),
        (lambda: MVEBLoss(group_size=4)(VIEWS, ROWS), "pair"),
        (lambda: MVEBLoss(group_size=4)(VIEWS, SHORT), "shapes"),
        (lambda: MVEBLoss(group_size=4)((ROWS, ROWS[:, :3]), VIEWS), "shapes"),
    ],
)
def test_refusals_name_what_is_wrong(build, word):
    with pytest.raises(UsageError, match=word) as refusal:
        build()
    assert refusal.value.next_step

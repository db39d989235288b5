"""SimCLR and C-SimCLR against reference values. The reference sums the two directions: twice the library's mean."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressl.errors import UsageError
from compressl.objectives import CSimCLRLoss, SimCLRLoss, VonMisesFisher
from compressl.objectives.common import unit
from compressl.objectives.csimclr import csimclr, csimclr_direction
from compressl.objectives.residual_information import residual_information
from compressl.objectives.simclr import contrastive_cross_entropy

CASES = ["S", "L"]
SEEDS = st.integers(0, 999)
CLOSE = {"rel": 2e-14, "abs": 2e-12}


def noisy(inputs, beta=1.0, kappa_b=10.0, kappa_e=1024.0, **options):
    """Our C-SimCLR loss on the given noise, from the raw inputs."""
    mu, m = unit(inputs.X), unit(inputs.Y)
    e, b = VonMisesFisher(inputs.d, kappa_e), VonMisesFisher(inputs.d, kappa_b)
    return csimclr(mu, m, inputs.z(mu), inputs.z_(m), e, b, beta, **options)


def test_the_fixed_inputs_are_the_reference_inputs(fixed):
    small, large = fixed("S"), fixed("L")
    mu, m = unit(small.X), unit(small.Y)
    assert (mu * m).sum(1).tolist() == pytest.approx(
        [0.908217668660483, 0.927724139558206, 0.887842746070812, 0.856059257490894], rel=1e-14
    )
    z = small.z(mu)[0, :3].tolist()
    assert z == pytest.approx([0.415383656436168, 0.102650095269933, -0.458560535216056], rel=1e-13)
    z_ = small.z_(m)[0, :3].tolist()
    assert z_ == pytest.approx([0.529213237588038, 0.135750700534899, -0.498219817611236], rel=1e-13)
    mu, m = unit(large.X), unit(large.Y)
    assert (mu[0] @ m[0]).item() == pytest.approx(0.996566136925326, rel=1e-14)
    assert large.z_(m)[0, :3].tolist() == pytest.approx(
        [0.101687342623696, 0.020646792525470, -0.096603680669678], rel=1e-12
    )


@pytest.mark.parametrize(
    ("case", "double", "plain"),
    [("S", 0.308782340578496, 0.0960469622658988), ("L", 2.1450500721667, 1.35520142789975)],
)
def test_simclr_reference(fixed, case, double, plain):
    inputs = fixed(case)
    assert 2 * SimCLRLoss(0.1)(inputs.X, inputs.Y)[0].item() == pytest.approx(double, **CLOSE)
    assert 2 * SimCLRLoss(0.1, double_batch=False)(inputs.X, inputs.Y)[0].item() == pytest.approx(plain, **CLOSE)


@pytest.mark.parametrize(
    ("case", "beta", "expected"),
    [
        ("S", 0, -3.58303795753213),
        ("L", 0, -3.27105033003772),
        ("S", 1, 30.0132584578254),
        ("L", 1, 603.279168616625),
    ],
)
def test_csimclr_without_sampling(fixed, case, beta, expected):
    inputs = fixed(case)
    loss, _ = CSimCLRLoss(beta=beta, sample=False)(inputs.X, inputs.Y)
    assert 2 * loss.item() == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize(
    ("options", "small", "large"),
    [
        ({"beta": 0}, -3.53392900282234, -2.794684993612),
        ({"beta": 0.1}, -0.847819766546562, 30.7120525289903),
        ({"beta": 0.5}, 9.89661717855654, 164.739002619399),
        ({"beta": 1}, 23.3271633599354, 332.272690232411),
        ({"beta": 2}, 50.1882557226932, 667.340065458433),
        ({"double_batch": False}, 24.2022549526878, 332.632417385387),
        ({"kappa_b": 1}, 32.8499407817335, 349.77821064308),
        ({"kappa_b": 50}, 21.2326679308847, 270.691043252512),
        ({"analytic": True}, 23.1320248905615, 366.771932436368),
    ],
)
def test_csimclr_on_given_noise(fixed, options, small, large):
    for case, expected in (("S", small), ("L", large)):
        loss, _ = noisy(fixed(case), **options)
        assert 2 * loss.item() == pytest.approx(expected, **CLOSE)


PARTS = {
    "S": {
        "residual_information": (13.3504597527077, 13.5106326100501),
        "mutual_information_bound": (1.83602800569563, 1.6979009971267),
        "cross_entropy": (0.109882143359679, 0.248009151928609),
        "forward_entropy": (-14.4193561333259, None),
        "backward_cross_entropy": (-1.06889638061821, None),
        "analytic": 13.3329769466919,
    },
    "L": {
        "residual_information": (167.535767734445, 167.531607491578),
        "mutual_information_bound": (1.31100013037641, 1.48368486323559),
        "cross_entropy": (1.3970500707258, 1.22436533786662),
        "forward_entropy": (-520.239966894608, None),
        "backward_cross_entropy": (-352.704199160163, None),
        "analytic": 184.78330871499,
    },
}


@pytest.mark.parametrize("case", CASES)
def test_terms_of_each_direction(fixed, case):
    inputs, parts = fixed(case), PARTS[case]
    e, b = VonMisesFisher(inputs.d, 1024.0), VonMisesFisher(inputs.d, 10.0)
    mu, m = unit(inputs.X), unit(inputs.Y)
    directions = (mu, inputs.z(mu), m), (m, inputs.z_(m), mu)
    both = [csimclr_direction(*views, e, b, 1.0) for views in directions]
    for name in set(parts) - {"analytic"}:
        for (_, terms), expected in zip(both, parts[name], strict=True):
            if expected is not None:
                assert terms[name].item() == pytest.approx(expected, **CLOSE), name
    floor = e.kl(mu[0], b, mu[0]).item()
    _, averaged = noisy(inputs)
    assert averaged["residual_information"].item() == pytest.approx(sum(parts["residual_information"]) / 2, **CLOSE)
    excess = sum(parts["residual_information"]) / 2 - floor
    assert averaged["residual_information_excess"].item() == pytest.approx(excess, abs=1e-10)
    assert averaged["alignment"].item() == pytest.approx((mu * m).sum(1).mean().item(), **CLOSE)
    for views in directions:
        _, terms = csimclr_direction(*views, e, b, 1.0, analytic=True)
        assert terms["residual_information"].item() == pytest.approx(parts["analytic"], **CLOSE)
        assert terms["forward_entropy"].item() == pytest.approx(e.entropy, **CLOSE)
        assert (terms["backward_cross_entropy"] - terms["forward_entropy"]).item() == pytest.approx(
            parts["analytic"], **CLOSE
        )


GRADIENTS = {  # of the summed directions: [0,0], [1,3], Frobenius norm
    "simclr": {
        "S": (-0.1739582106133, 0.0001012031294283, 0.5245537557008),
        "L": (-0.00031410918291, 0.001595257171792, 0.08751741850972),
    },
    "det": {
        "S": (-0.5808151465379, -0.3055880044023, 2.408278322138),
        "L": (-9.36455748133e-05, 0.002109115727789, 0.1107452461656),
    },
    "noise": {
        "S": (-0.580927736214, -0.2955935578464, 2.487848981001),
        "L": (-0.002204878409337, 0.002213795675989, 0.1779667836781),
    },
    "analytic": {
        "S": (-0.5764989299559, -0.3045759440063, 2.438590760981),
        "L": (-0.001092787301621, 0.001902562215746, 0.1149768118961),
    },
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("which", GRADIENTS)
def test_gradients(fixed, which, case):
    inputs = fixed(case)
    loss, _ = {
        "simclr": lambda: SimCLRLoss(0.1)(inputs.X, inputs.Y),
        "det": lambda: CSimCLRLoss(sample=False)(inputs.X, inputs.Y),
        "noise": lambda: noisy(inputs),
        "analytic": lambda: noisy(inputs, analytic=True),
    }[which]()
    (gradient,) = torch.autograd.grad(2 * loss, inputs.X)
    got = gradient[0, 0].item(), gradient[1, 3].item(), gradient.norm().item()
    assert got == pytest.approx(GRADIENTS[which][case], rel=1e-11, abs=2e-13)
    assert (gradient * inputs.X).sum(1).abs().max() < 1e-12


def test_wrong_variants_are_told_apart(fixed):
    inputs, right = fixed("S"), 0.308782340578496
    mu, m = unit(inputs.X), unit(inputs.Y)
    assert abs(SimCLRLoss(0.1)(inputs.X, inputs.Y)[0].item() - right) > 0.1  # the sum of directions is not ours
    own, other = 10 * mu @ mu.T, 10 * mu @ m.T
    unmasked = (torch.cat([other, own], 1).logsumexp(1) - other.diagonal()).mean()
    masked = contrastive_cross_entropy(mu, mu, m, 10.0)[0].mean()
    assert (unmasked - masked).abs() > 0.5
    swapped = contrastive_cross_entropy(mu, m, mu, 10.0)[0].mean()  # the own view as the positive
    assert (swapped - masked).abs() > 0.05
    # kappa_e in the decoder instead of kappa_b
    assert abs(2 * SimCLRLoss(1 / 1024)(inputs.X, inputs.Y)[0].item() - right) > 0.1


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_without_compression_and_noise_it_is_simclr(embeddings, seed):
    a, b = embeddings(seed)
    plain, _ = SimCLRLoss(0.1)(a, b)
    compressive, terms = CSimCLRLoss(beta=0.0, sample=False)(a, b)
    torch.testing.assert_close(compressive, plain - math.log(2 * len(a) - 1), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(terms["mutual_information_bound"], -compressive, rtol=1e-13, atol=1e-13)


@given(seed=SEEDS, analytic=st.booleans(), double_batch=st.booleans())
@settings(max_examples=15, deadline=None)
def test_symmetries(embeddings, seed, analytic, double_batch):
    a, b, noise_a, noise_b = embeddings(seed, count=4)
    e, kappa_b = VonMisesFisher(8, 100.0), VonMisesFisher(8, 10.0)

    def loss(a, b, noise_a, noise_b):
        mu, m = unit(a), unit(b)
        z, z_ = unit(mu + 0.3 * noise_a), unit(m + 0.3 * noise_b)
        return csimclr(mu, m, z, z_, e, kappa_b, 1.0, analytic=analytic, double_batch=double_batch)[0]

    whole = loss(a, b, noise_a, noise_b)
    order = torch.tensor([3, 0, 4, 1, 2])
    scale = torch.tensor([[1e-3], [0.5], [1.0], [7.0], [1e3]], dtype=torch.float64)
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(loss(b, a, noise_b, noise_a), whole, **close)
    torch.testing.assert_close(loss(a[order], b[order], noise_a[order], noise_b[order]), whole, **close)
    torch.testing.assert_close(loss(a * scale, b * scale.flip(0), noise_a, noise_b), whole, **close)
    assert (loss(a, b[order], noise_a, noise_b) - whole).abs() > 1e-6


@pytest.mark.parametrize("kappa_e", [1024.0, 16384.0])
def test_the_full_loss_has_the_gradient_of_the_reduced_one(fixed, kappa_e):
    # per direction: logsumexp(logits) - (1 + beta) kappa_b m^T z, and a constant
    inputs, beta = fixed("L", kappa_e), 0.7
    full, _ = noisy(inputs, beta=beta, kappa_e=kappa_e)
    mu, m = unit(inputs.X), unit(inputs.Y)
    z, z_ = inputs.z(mu), inputs.z_(m)
    diagonal = torch.eye(inputs.K, dtype=torch.bool)

    def reduced(z, own, other):
        logits = torch.cat([10 * z @ other.T, (10 * z @ own.T).masked_fill(diagonal, -1e9)], 1)
        return logits.logsumexp(1) - (1 + beta) * 10 * (other * z).sum(1)

    loss = (reduced(z, mu, m) + reduced(z_, m, mu)).mean() / 2
    for x in (inputs.X, inputs.Y):
        (difference,) = torch.autograd.grad(full - loss, x, retain_graph=True)
        assert difference.abs().max() < 1e-13
    # kappa_e (z^T mu) spelled out: its gradient vanishes but for rounding, which grows with kappa_e
    (spurious,) = torch.autograd.grad(kappa_e * (z * mu).sum(), inputs.X)
    assert spurious.abs().max() < 1e-11
    e, b = VonMisesFisher(inputs.d, kappa_e), VonMisesFisher(inputs.d, 10.0)
    log_e = e.log_normalizer + kappa_e * (mu * z).sum(1).mean() / 2 + kappa_e * (m * z_).sum(1).mean() / 2
    constant = beta * (log_e - b.log_normalizer) - math.log(2 * inputs.K - 1)
    torch.testing.assert_close(full - loss, constant, rtol=1e-11, atol=1e-9)


def test_sampling_follows_the_generator(embeddings):
    a, b = embeddings(0, dim=16)
    objective = CSimCLRLoss(kappa_e=50.0)
    first, again, other = (objective(a, b, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2))
    assert first == again
    assert first != other
    # both views draw their own noise: with equal views the two directions still differ
    e, b10 = VonMisesFisher(16, 50.0), VonMisesFisher(16, 10.0)
    generator = torch.Generator().manual_seed(1)
    mu, m = unit(a), unit(b)
    z, z_ = e.sample(mu, generator), e.sample(m, generator)
    assert not torch.allclose(z - mu, z_ - m)
    torch.testing.assert_close(csimclr(mu, m, z, z_, e, b10, 1.0)[0], first, rtol=0, atol=0)


def test_analytic_residual_has_the_mean_of_the_sampled_one(embeddings):
    mu, m = (unit(x).expand(5000, 16) for x in embeddings(4, images=1, dim=16))
    e, b = VonMisesFisher(16, 200.0), VonMisesFisher(16, 10.0)
    z = e.sample(mu, torch.Generator().manual_seed(0))
    draws, sampled = residual_information(mu, z, m, e, b)
    exact, analytic = residual_information(mu, z, m, e, b, analytic=True)
    assert exact.std() < 1e-12
    assert 0.1 < draws.std() < 10
    assert (draws.mean() - exact[0]).abs() < 5 * draws.std() / math.sqrt(5000)
    for name, value in analytic.items():
        assert (sampled[name] - value).abs() < 0.3, name


def test_terms_are_detached_scalars_and_leave_the_loss_alone(embeddings):
    a, b = (x.requires_grad_() for x in embeddings(1))
    generator = torch.Generator().manual_seed(0)
    shared = {"cross_entropy", "mutual_information_bound", "contrastive_entropy", "contrastive_accuracy", "alignment"}
    information = {
        "residual_information",
        "residual_information_excess",
        "forward_entropy",
        "backward_cross_entropy",
    }
    for loss, terms, names in [
        (*SimCLRLoss()(a, b), shared),
        (*CSimCLRLoss()(a, b, generator), shared | information),
        (*CSimCLRLoss(analytic=True)(a, b, generator), shared | information),
    ]:
        assert set(terms) == names
        assert all(value.ndim == 0 and not value.requires_grad for value in terms.values())
        assert loss.ndim == 0
        assert loss.requires_grad
        if "residual_information" in terms:
            rebuilt = terms["residual_information"] - terms["mutual_information_bound"]
            torch.testing.assert_close(loss.detach(), rebuilt, rtol=1e-12, atol=1e-12)
        else:
            torch.testing.assert_close(loss.detach(), terms["cross_entropy"])


def test_contrastive_terms_have_their_textbook_values():
    z = torch.eye(4, 8, dtype=torch.float64)
    uniform = torch.zeros(4, 8, dtype=torch.float64)
    _, terms = contrastive_cross_entropy(uniform, uniform, uniform, 10.0)
    assert terms["contrastive_entropy"].item() == pytest.approx(math.log(7))
    assert terms["mutual_information_bound"].item() == pytest.approx(0, abs=1e-12)
    _, terms = contrastive_cross_entropy(z, z, z, 1000.0)
    assert terms["contrastive_entropy"].item() == pytest.approx(0, abs=1e-12)
    assert terms["mutual_information_bound"].item() == pytest.approx(math.log(7))
    assert terms["contrastive_accuracy"].item() == 1
    _, terms = contrastive_cross_entropy(z, z, z.roll(1, 0), 1000.0)
    assert terms["contrastive_accuracy"].item() == 0


@pytest.mark.parametrize("objective", [SimCLRLoss(), CSimCLRLoss(), CSimCLRLoss(analytic=True)], ids=repr)
def test_degenerate_batches_stay_finite(objective):
    identical = torch.ones(4, 8)
    zeros = torch.zeros(4, 8)
    for x in (identical, zeros, torch.cat([zeros[:1], torch.eye(8)[:3]])):
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        loss, terms = objective(a, b)
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(value) for value in terms.values())
        assert torch.isfinite(a.grad).all()
        assert torch.isfinite(b.grad).all()


def test_full_precision_under_autocast(embeddings):
    a, b = embeddings(7, images=16, dim=256)
    for objective in (SimCLRLoss(), CSimCLRLoss(), CSimCLRLoss(kappa_e=16384.0), CSimCLRLoss(analytic=True)):
        given_noise = [] if isinstance(objective, SimCLRLoss) else [0]

        def run(a, b, autocast, objective=objective, given_noise=given_noise):
            a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                loss, _ = objective(a, b, *(torch.Generator().manual_seed(seed) for seed in given_noise))
            return loss, *torch.autograd.grad(loss, (a, b))  # backward belongs outside autocast

        exact = run(a, b, autocast=False)
        mixed = run(a.float(), b.float(), autocast=True)
        assert mixed[0].dtype == torch.float32
        assert exact[0].dtype == torch.float64
        assert (mixed[0] - exact[0]).abs() < 1e-3
        for ours, theirs in zip(mixed[1:], exact[1:], strict=True):
            assert (ours - theirs).norm() < 1e-3 * theirs.norm()
        half, _ = objective(a.bfloat16(), b.bfloat16())
        assert half.dtype == torch.float32


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: SimCLRLoss(0.0), "temperature"),
        (lambda: SimCLRLoss(math.inf), "temperature"),
        (lambda: CSimCLRLoss(kappa_e=0.0), "kappa_e"),
        (lambda: CSimCLRLoss(kappa_b=-1.0), "kappa_b"),
        (lambda: CSimCLRLoss(beta=-0.1), "beta"),
        (lambda: CSimCLRLoss(beta=math.nan), "beta"),
        (lambda: CSimCLRLoss(sample=False, analytic=True), "analytic"),
        (lambda: SimCLRLoss()(torch.ones(1, 8), torch.ones(1, 8)), "negatives"),
        (lambda: CSimCLRLoss()(torch.ones(1, 8), torch.ones(1, 8)), "negatives"),
        (lambda: SimCLRLoss()(torch.ones(4, 8), torch.ones(3, 8)), "shapes"),
        (lambda: CSimCLRLoss()(torch.ones(4, 8), torch.ones(4, 7)), "shapes"),
        (lambda: SimCLRLoss()(torch.ones(4, 8, 1), torch.ones(4, 8, 1)), "shapes"),
        (lambda: CSimCLRLoss()(torch.ones(4, 1), torch.ones(4, 1)), "dim"),
    ],
)
def test_refusals_name_what_is_wrong(build, word):
    with pytest.raises(UsageError, match=word) as refusal:
        build()
    assert refusal.value.next_step

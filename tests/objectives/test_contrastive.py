"""SimCLR and C-SimCLR against reference values. The reference sums the two directions: twice the library's mean."""

import math

import pytest
import torch
from hypothesis import strategies as st

from compressl.objectives import CSimCLRLoss, SimCLRLoss, VonMisesFisher
from compressl.objectives.common import unit
from compressl.objectives.csimclr import csimclr, csimclr_direction
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
    assert mu[0, :3].tolist() == pytest.approx([0.428942904328322, 0.071936438937172, -0.488815147320664], rel=1e-13)
    mu, m = unit(large.X), unit(large.Y)
    assert (mu[0] @ m[0]).item() == pytest.approx(0.996566136925326, rel=1e-14)
    assert mu[0, :3].tolist() == pytest.approx([0.112031122354145, 0.048169128277306, -0.070622631074207], rel=1e-13)
    z = large.z(mu)[0, :3].tolist()
    assert z == pytest.approx([0.081435299898056, 0.073017607221156, -0.027644294635538], rel=1e-12)
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

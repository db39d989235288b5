"""StochCon's loss against reference values, and a price on its code."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressl.errors import UsageError
from compressl.objectives import BernoulliLatent, GaussianLatent, SimCLRLoss, StochConLoss
from compressl.objectives.latents import active_bits

SEEDS = st.integers(0, 999)
NT_XENT = {0.1: 0.15188828865348278, 0.5: 1.0607139507210264, 1.0: 1.5598754872988383}
TOY = {(1.0, False): 2.9981392044914004, (0.1, False): 2.862606901524966}
TOY |= {(t, True): 2.8893236898163153 for t in (1.0, 0.1)}


@pytest.fixture
def inputs():
    """A deterministic and a stochastic branch of 6 images in 4 dimensions, a bottleneck of 3 bits, its noise."""
    i, j = torch.arange(6.0, dtype=torch.float64)[:, None], torch.arange(4.0, dtype=torch.float64)[None]
    k = torch.arange(3.0, dtype=torch.float64)
    a = (i + 2 * j).sin()
    b = a + 0.3 * (3 * i - j).cos()
    pi, rho = (j.T + k).cos(), (1 + k[:, None] + j).sin()  # [4, 3], [3, 4]
    return SimpleNamespace(a=a, b=b, logits=b @ pi, rho=rho, u=((7 * i + 3 * k) % 10 + 0.5) / 10)


def nt_xent(v, v_, temperature):
    """Equation 13, term by term."""
    rows = nn.functional.normalize(torch.cat([v, v_]), dim=1)
    images, total = len(v), 0.0
    for i, row in enumerate(rows):
        similarities = [(row @ other / temperature).exp() for k, other in enumerate(rows) if k != i]
        total = total - ((row @ rows[(i + images) % (2 * images)] / temperature).exp() / sum(similarities)).log()
    return total / (2 * images)


@pytest.mark.parametrize("temperature", NT_XENT)
def test_reference_values(inputs, temperature):
    loss, terms = StochConLoss(temperature)(inputs.a, inputs.b)
    assert loss.item() == pytest.approx(NT_XENT[temperature], rel=1e-13)
    assert nt_xent(inputs.a, inputs.b, temperature).item() == pytest.approx(NT_XENT[temperature], rel=1e-12)
    assert terms["cross_entropy"].item() == pytest.approx(loss.item(), rel=1e-14)
    assert terms["mutual_information_bound"].item() == pytest.approx(math.log(11) - loss.item(), rel=1e-13)


def test_reference_gradients(inputs):
    a, b = inputs.a.requires_grad_(), inputs.b.detach().requires_grad_()
    wrt_a, wrt_b = torch.autograd.grad(StochConLoss(0.1)(a, b)[0], (a, b))
    assert wrt_a.norm().item() == pytest.approx(0.25428709291271534, rel=1e-12)
    assert wrt_b.norm().item() == pytest.approx(0.3383348273472912, rel=1e-12)
    row = [0.000108038317, -0.000268445522, -0.001284637538, 0.002605868595]
    assert wrt_a[0].tolist() == pytest.approx(row, abs=1e-12)


@pytest.mark.parametrize(("temperature", "hard"), TOY)
def test_from_end_to_end(inputs, temperature, hard):
    latent = BernoulliLatent(temperature, hard=hard)
    assert inputs.logits[0].tolist() == pytest.approx([1.816412681784, 0.96582822296, -0.772734249909], rel=1e-11)
    z = latent(inputs.logits, inputs.u)
    if temperature == 1.0 and not hard:
        assert z[0].tolist() == pytest.approx([0.244525524629, 0.585838707354, 0.461651699081], rel=1e-11)
    loss, _ = StochConLoss(0.5, latent)(inputs.a, z @ inputs.rho, [inputs.logits])
    assert loss.item() == pytest.approx(TOY[temperature, hard], rel=1e-13)
    if hard:
        assert active_bits(z).item() == pytest.approx(1.1666666666666667, rel=1e-6)
        assert active_bits(latent.code(inputs.logits)).item() == pytest.approx(4 / 3, rel=1e-6)  # without noise


def test_wrong_variants_are_told_apart(inputs):
    right = NT_XENT[0.5]
    a, b = (nn.functional.normalize(x, dim=1) for x in (inputs.a, inputs.b))
    across, within = 2 * a @ b.T, 2 * a @ a.T
    one_sided = (torch.cat([across, within.masked_fill(torch.eye(6, dtype=torch.bool), -torch.inf)], 1)).logsumexp(1)
    wrong = {
        "stochastic negatives alone": SimCLRLoss(0.5, double_batch=False)(a, b)[0],
        "deterministic anchors alone": (one_sided - across.diagonal()).mean(),
        "with itself among the candidates": (torch.cat([across, within], 1).logsumexp(1) - across.diagonal()).mean(),
        "dot products instead of cosines": nn.functional.cross_entropy(2 * inputs.a @ inputs.b.T, torch.arange(6)),
        "summed over branches": 2 * StochConLoss(0.5)(a, b)[0],
    }
    for name, value in wrong.items():
        assert abs(value.item() - right) > 1e-3, name


def test_both_branches_learn(inputs):
    """No stop-gradient on either."""
    a, logits = inputs.a.requires_grad_(), inputs.logits.detach().requires_grad_()
    for hard in (False, True):
        z = BernoulliLatent(0.5, hard=hard)(logits, inputs.u)
        gradients = torch.autograd.grad(StochConLoss(0.5)(a, z @ inputs.rho)[0], (a, logits))
        assert min(gradient.norm() for gradient in gradients) > 1e-3


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_symmetries(embeddings, seed):
    v, v_, logits = embeddings(seed, count=3)
    objective = StochConLoss(0.5, BernoulliLatent(prior=0.3), kl_weight=0.1)
    whole, terms = objective(v, v_, [logits])
    order = torch.tensor([3, 0, 4, 1, 2])
    scale = torch.tensor([[1e-3], [0.5], [1.0], [7.0], [1e3]], dtype=torch.float64)
    close = {"rtol": 1e-12, "atol": 1e-12}
    permuted, same = objective(v[order], v_[order], [logits[order]])
    torch.testing.assert_close(permuted, whole, **close)
    torch.testing.assert_close(same, terms, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(objective(v_, v, [logits])[0], whole, **close)
    torch.testing.assert_close(objective(v * scale, v_ * scale.flip(0), [logits])[0], whole, **close)
    assert (objective(v, v_[order], [logits])[0] - whole).abs() > 1e-6
    torch.testing.assert_close(StochConLoss(0.5)(v, v_)[0], nt_xent(v, v_, 0.5), **close)


@pytest.mark.parametrize("latent", [BernoulliLatent(prior=0.2), GaussianLatent()], ids=repr)
def test_the_price_of_the_code_is_added_and_is_off_by_default(embeddings, latent):
    v, v_, first, second = embeddings(3, count=4)
    phi = [x.requires_grad_() for x in ([first] if isinstance(latent, BernoulliLatent) else [first, second.exp()])]
    free, terms = StochConLoss(0.5, latent)(v, v_, phi)
    assert torch.equal(free, SimCLRLoss(0.5)(v, v_)[0])
    paid, same = StochConLoss(0.5, latent, kl_weight=0.3)(v, v_, phi)
    torch.testing.assert_close(paid - free, 0.3 * latent.divergence(*phi).mean(), rtol=1e-12, atol=1e-12)
    assert terms["latent_divergence"].item() == pytest.approx(latent.divergence(*phi).mean().item())
    torch.testing.assert_close(same, terms)
    assert all(value.ndim == 0 and not value.requires_grad for value in terms.values())
    assert {"cross_entropy", "mutual_information_bound", "alignment", "latent_entropy"} <= set(terms)
    gradients = torch.autograd.grad(paid, phi)
    assert all(gradient.norm() > 0 for gradient in gradients)


@pytest.mark.parametrize("kl_weight", [0.0, 0.1])
def test_degenerate_batches_stay_finite(kl_weight):
    latent = BernoulliLatent(0.1, hard=True)
    zeros = torch.zeros(4, 8)
    for x in (torch.ones(4, 8), zeros, torch.cat([zeros[:1], torch.eye(8)[:3]]), 1 + 1e-6 * torch.eye(4, 8)):
        v, logits = x.clone().requires_grad_(), x.clone().requires_grad_()
        loss, terms = StochConLoss(0.1, latent, kl_weight)(v, latent(logits), [logits])
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(value) for value in terms.values())
        assert torch.isfinite(v.grad).all()
        assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("latent", [BernoulliLatent(prior=0.2), GaussianLatent()], ids=repr)
def test_full_precision_under_autocast(embeddings, latent):
    v, v_, first, second = (x.bfloat16() for x in embeddings(7, count=4, images=32, dim=64))
    phi = [first] if isinstance(latent, BernoulliLatent) else [first, second.exp()]
    objective = StochConLoss(0.1, latent, kl_weight=0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, terms = objective(v, v_, phi)
    exact, wide = objective(v.double(), v_.double(), [x.double() for x in phi])
    assert mixed.dtype == torch.float32
    assert exact.dtype == torch.float64
    assert abs(mixed - exact) < 1e-5 * abs(exact)
    for name, value in terms.items():
        assert value.item() == pytest.approx(wide[name].item(), rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: StochConLoss(0.0), "temperature"),
        (lambda: StochConLoss(0.1, BernoulliLatent(), kl_weight=-1.0), "kl_weight"),
        (lambda: StochConLoss(kl_weight=0.1), "without a latent"),
        (lambda: StochConLoss()(torch.ones(1, 8), torch.ones(1, 8)), "negatives"),
        (lambda: StochConLoss()(torch.ones(4, 8), torch.ones(4, 7)), "shapes"),
        (lambda: StochConLoss()(torch.ones(4, 8), torch.ones(4, 8), [torch.ones(4, 8)]), "phi"),
        (lambda: StochConLoss(latent=BernoulliLatent())(torch.ones(4, 8), torch.ones(4, 8)), "phi"),
        (
            lambda: StochConLoss(latent=GaussianLatent())(
                torch.ones(4, 8), torch.ones(4, 8), [torch.ones(4, 2), torch.ones(4, 3)]
            ),
            "phi",
        ),
        (lambda: StochConLoss(latent=BernoulliLatent())(torch.ones(4, 8), torch.ones(4, 8), [torch.ones(3, 8)]), "phi"),
    ],
)
def test_refusals_name_what_is_wrong(build, word):
    with pytest.raises(UsageError, match=word) as refusal:
        build()
    assert refusal.value.next_step

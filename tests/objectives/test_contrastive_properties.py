"""SimCLR and C-SimCLR: symmetries, sampling, terms, precision, refusals."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressl.errors import UsageError
from compressl.objectives import CSimCLRLoss, SimCLRLoss, VonMisesFisher
from compressl.objectives.common import unit
from compressl.objectives.csimclr import csimclr
from compressl.objectives.residual_information import residual_information
from compressl.objectives.simclr import contrastive_cross_entropy

SEEDS = st.integers(0, 999)


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

"""StochCon's graph: what is random, what is shared, and what each view decides."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from small import small_settings
from torch import Tensor, nn

from compressl.errors import UsageError
from compressl.methods import StochCon, create_method
from compressl.methods.stochcon import temperature_at
from compressl.objectives import BernoulliLatent, SimCLRLoss
from compressl.objectives.latents import positive_scale
from compressl.settings.methods import StochConSettings

FEATURES, BITS, IMAGES = 12, 20, 16


def _method(**numbers: Any) -> StochCon:
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, FEATURES), nn.BatchNorm1d(FEATURES), nn.Tanh()
    )
    method = create_method(small_settings("stochcon", **{"latent_dim": BITS} | numbers), encoder, FEATURES, seed=0)
    assert isinstance(method, StochCon)
    return method


def _views(small: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(IMAGES, 3, 8, 8, generator=generator)
    views = [image + 0.1 * torch.randn(image.shape, generator=generator) for _ in range(2 + small)]
    return [*views[:2], *(view[:, :, :4, :4] for view in views[2:])]


def _noise(seed: int = 2) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_two_views_by_hand() -> None:
    """v = g(h), v' = g(rho(z')), z' from the second view's feature; the head sees one branch after the other."""
    method = _method(temperature=0.5, hard=True)
    views, reference = _views(), copy.deepcopy(method)
    loss, terms = method(views, _noise())

    h, h_ = reference.encoder(torch.cat(views)).chunk(2)
    logits = reference.bottleneck(h_)
    u = torch.rand(IMAGES, BITS, generator=_noise())
    z = (u.log() - torch.log1p(-u) + logits >= 0).float()
    v, v_ = reference.projection(h), reference.projection(reference.upsampler(z))
    torch.testing.assert_close(loss, SimCLRLoss(0.5)(v, v_)[0])
    assert terms["active_bits"].item() == pytest.approx((logits >= 0).float().sum(1).mean().item())
    # the first view stochastic instead, or both
    z_first = (u.log() - torch.log1p(-u) + reference.bottleneck(h) >= 0).float()
    v_first = reference.projection(reference.upsampler(z_first))
    for wrong in ((v_first, reference.projection(h_)), (v_first, v_)):
        assert (SimCLRLoss(0.5)(*wrong)[0] - loss).abs() > 1e-4


def test_the_running_statistics_are_those_of_the_branch_without_noise() -> None:
    """What evaluation mode embeds is then v, however far from it rho's output lies."""
    method = _method()
    with torch.no_grad():
        method.upsampler.weight *= 50  # type: ignore[operator]
    reference = copy.deepcopy(method)
    method(_views(), _noise())
    reference.projection(reference.encoder(torch.cat(_views()))[:IMAGES])
    torch.testing.assert_close(method.projection[1].running_mean, reference.projection[1].running_mean)
    torch.testing.assert_close(method.projection[1].running_var, reference.projection[1].running_var)
    assert method.projection[1].num_batches_tracked == 1


def test_without_a_code_in_between_it_is_simclr_with_noise() -> None:
    """latent_dim 0: pi and rho are identities, the feature gives the logits."""
    method = _method(latent_dim=0)
    assert isinstance(method.bottleneck, nn.Identity)
    assert isinstance(method.upsampler, nn.Identity)
    _, terms = method(_views(), _noise())
    assert 0 < terms["active_bits"] < FEATURES
    assert torch.equal(method.encode(_views()[0]), (method.encoder(_views()[0]) >= 0).float())


@pytest.mark.parametrize("latent", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("hard", [False, True])
def test_everything_learns(latent: str, hard: bool) -> None:
    """No stop-gradient: every parameter learns, and both views reach the loss."""
    method = _method(latent=latent, hard=hard)
    views = [view.requires_grad_() for view in _views()]
    method(views, _noise())[0].backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all(), name
        if name != "encoder.2.bias":  # batch norm takes away what is added to all images
            assert parameter.grad.norm() > 1e-5, name
    for view in views:
        assert view.grad is not None
        assert view.grad.norm() > 1e-5


def test_sizes_of_the_layers() -> None:
    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    encoder = nn.Flatten()
    with torch.device("meta"):  # sizes alone
        method = StochCon(StochConSettings(latent_dim=512), encoder, 2048)
        gaussian = StochCon(StochConSettings(latent="gaussian", latent_dim=512), encoder, 2048)
    assert count(method.bottleneck) == 2048 * 512 + 512
    assert count(method.upsampler) == 512 * 2048
    assert count(method.projection) == 2048 * 2048 + 2 * 2048 + 2048 * 128  # one head for both branches
    assert count(gaussian.bottleneck) == 2 * (2048 * 512 + 512)
    assert count(gaussian.upsampler) == count(method.upsampler)


@pytest.mark.parametrize("variance", ["opposing", "own"])
def test_the_view_that_gives_the_scale(variance: str) -> None:
    method = _method(latent="gaussian", variance=variance)
    own, opposing = torch.randn(2, IMAGES, FEATURES, generator=_noise(), requires_grad=True).unbind()
    mean, scale = method.natural(own, opposing)
    assert torch.equal(mean, method.bottleneck(own)[:, :BITS])
    source = opposing if variance == "opposing" else own
    assert torch.equal(scale, positive_scale(method.bottleneck(source)[:, BITS:]))
    # the gradient follows: no stop-gradient on the opposing view
    own_gradient, opposing_gradient = torch.autograd.grad(
        (mean**2).sum() + scale.sum(), (own, opposing), allow_unused=True
    )
    assert own_gradient.norm() > 0
    assert (opposing_gradient is None) == (variance == "own")


def test_schedule_of_the_temperature() -> None:
    method = _method()
    assert isinstance(method.latent, BernoulliLatent)
    assert method.latent.temperature == 1.0
    for progress, expected in ((0.0, 1.0), (0.25, 0.868198), (0.5, 0.55), (0.75, 0.231802), (1.0, 0.1)):
        method.before_step(progress)
        assert method.latent.temperature == pytest.approx(expected, abs=1e-6)
        assert method.objective.latent is method.latent
    assert temperature_at(0.5, 2.0, 1.0) == pytest.approx(1.5)
    _method(latent="gaussian").before_step(0.5)  # has none


def test_the_temperature_decides_on_the_gradient_of_hard_bits_alone() -> None:
    losses, gradients = [], []
    for progress in (0.0, 1.0):
        method = _method(hard=True)
        method.before_step(progress)
        loss, _ = method(_views(), _noise())
        loss.backward()
        losses.append(loss.item())
        gradients.append(method.bottleneck.weight.grad)  # type: ignore[union-attr]
    assert losses[0] == losses[1]
    assert (gradients[0] - gradients[1]).norm() > 1e-3  # type: ignore[operator]


@pytest.mark.parametrize("latent", ["bernoulli", "gaussian"])
def test_noise_in_training_alone(latent: str) -> None:
    method = _method(latent=latent)
    first, again, other = (method(_views(), _noise(seed))[0].item() for seed in (2, 2, 3))
    assert first == again
    assert first != other
    method.eval()
    assert method(_views(), _noise(2))[0] == method(_views(), _noise(3))[0]


def test_pairs() -> None:
    assert _method().pairs(2) == [(0, 1)]  # deterministic, stochastic
    assert _method(stochastic="top").pairs(2) == [(0, 1)]
    assert _method(symmetric=True).pairs(2) == [(0, 1), (1, 0)]
    assert _method().pairs(4) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)]
    assert _method(stochastic="top").pairs(4) == [(0, 1), (2, 0), (3, 0), (2, 1), (3, 1)]
    assert len(_method(symmetric=True).pairs(8)) == 14


@pytest.mark.parametrize("stochastic", ["top", "bottom"])
@pytest.mark.parametrize("latent", ["bernoulli", "gaussian"])
def test_small_crops_by_hand(stochastic: str, latent: str) -> None:
    """Without noise, so that the pairs may be computed in any order."""
    method = _method(stochastic=stochastic, latent=latent).eval()
    views = _views(small=2)
    loss, _ = method(views)
    h = [method.encoder(view) for view in views]
    losses = []
    for plain, code in method.pairs(4):
        z = method.latent.mode(*method.natural(h[code], h[plain]))
        v, v_ = method.projection(h[plain]), method.projection(method.upsampler(z))
        losses.append(SimCLRLoss()(v, v_)[0])
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    assert len(losses) == 5


def test_small_crops_train_and_pass_by_size() -> None:
    method, seen = _method(), []
    method.encoder.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    loss, terms = method(_views(small=3), _noise())
    assert seen == [2 * IMAGES, 3 * IMAGES]
    assert torch.isfinite(loss)
    assert all(value.ndim == 0 and not value.requires_grad for value in terms.values())


def test_each_code_has_noise_of_its_own() -> None:
    method, seen = _method(hard=True), []
    method.upsampler.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    view = _views()[0]
    method([view, view, view, view], _noise())  # equal crops
    assert len(seen) == 5
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])
    assert all(set(z.unique().tolist()) == {0.0, 1.0} for z in seen)


@pytest.mark.parametrize("latent", ["bernoulli", "gaussian"])
def test_a_price_on_the_code_lowers_what_it_carries(latent: str) -> None:
    ends = {}
    for kl_weight in (0.0, 0.3):
        method = _method(latent=latent, kl_weight=kl_weight, temperature=0.5)
        optimizer = torch.optim.Adam(method.parameters(), lr=0.01)
        for step in range(60):
            loss, terms = method(_views(), _noise(step))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ends[kl_weight] = terms["latent_divergence"].item()
    assert ends[0.3] < 0.5 * ends[0.0]


def test_codes_as_they_are_stored() -> None:
    method = _method().eval()
    view = _views()[0]
    code, packed = method.encode(view), method.bits(view)
    assert code.shape == (IMAGES, BITS)
    assert packed.shape == (IMAGES, 3)  # 20 bits
    assert packed.dtype == torch.uint8
    assert torch.equal(code, (method.bottleneck(method.encoder(view)) >= 0).float())
    assert packed[0, 0].item() == int("".join(str(int(bit)) for bit in code[0, :8]), 2)
    assert method.embed(view).shape == (IMAGES, 8)
    torch.testing.assert_close(method.embed(view), method.projection(method.encoder(view)))  # the branch without noise
    gaussian = _method(latent="gaussian").eval()
    assert torch.equal(gaussian.encode(view), gaussian.bottleneck(gaussian.encoder(view))[:, :BITS])
    with pytest.raises(UsageError, match="bits"):
        gaussian.bits(view)


def test_settings_refuse_what_cannot_be() -> None:
    assert StochConSettings().check() == []
    for wrong, word in [
        ({"temperature": 0.0}, "temperature"),
        ({"latent_temperature_end": 0.0}, "latent_temperature_end"),
        ({"latent_dim": -1}, "latent_dim"),
        ({"latent": "gaussian", "latent_dim": 0}, "gaussian"),
        ({"kl_weight": -0.1}, "kl_weight"),
        ({"prior": 1.0}, "prior"),
        ({"dim": 1}, "dim"),
    ]:
        problems = StochConSettings(**wrong).check()  # type: ignore[arg-type]
        assert len(problems) == 1
        assert word in problems[0]

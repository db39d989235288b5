"""What each method trains as the density of its code, and what its backward encoder finds in excess."""

from __future__ import annotations

import pytest
import torch
from small import small_settings
from torch import Tensor, nn

from compressl.measures.channels import BernoulliChannel, GaussianChannel, VonMisesFisherChannel
from compressl.methods import METHODS, Method, create_method

IMAGES, FEATURES = 12, 10


def _method(name: str, **numbers: object) -> Method:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, FEATURES), nn.BatchNorm1d(FEATURES))
    return create_method(small_settings(name, **numbers), encoder, FEATURES, seed=0)


def _views() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(IMAGES, 3, 4, 4, generator=generator)
    return [image + 0.3 * torch.randn(image.shape, generator=generator) for _ in range(2)]


def _trained(method: Method) -> Method:
    """A few steps away from where the slow copies begin, in evaluation mode."""
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.3)
    for step in range(3):
        method.before_step(step / 3)
        loss, _ = method(_views(), torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(step / 3)
    return method.eval()


@pytest.mark.parametrize("name", ["c-simclr", "c-byol"])
def test_von_mises_fisher_about_the_embedding(name: str) -> None:
    method = _trained(_method(name, kappa_e=50.0))
    view = _views()[0]
    channel = method.channel(method.encoder(view))
    assert isinstance(channel, VonMisesFisherChannel)
    assert channel.kappa == 50.0
    torch.testing.assert_close(channel.mean_direction, nn.functional.normalize(method.embed(view), dim=1))


def test_stochcon() -> None:
    method = _trained(_method("stochcon"))
    view = _views()[0]
    channel = method.channel(method.encoder(view))
    assert isinstance(channel, BernoulliChannel)
    assert torch.equal((channel.logits >= 0).float(), method.encode(view))  # type: ignore[operator]
    method = _trained(_method("stochcon", latent="gaussian", variance="opposing"))
    channel = method.channel(method.encoder(view))
    assert isinstance(channel, GaussianChannel)
    assert torch.equal(channel.mean, method.encode(view))  # type: ignore[operator]


@pytest.mark.parametrize("name", ["c-simclr", "c-byol"])
def test_the_excess_is_that_of_the_objective(name: str) -> None:
    """On the same views, without noise, averaged over both directions: what the training would log of expectations."""
    method = _trained(_method(name, kappa_e=50.0))
    method.objective.analytic = True  # type: ignore[union-attr]
    views = _views()
    logged = method(views)[1]["residual_information_excess"]
    a, b = (method.encoder(view) for view in views)
    given = (b, a) if method.slow_encoder is None else tuple(method.slow_encoder(view) for view in views)
    found = [method.residual_information(own, other) for own, other in zip((a, b), given, strict=True)]
    assert (method.slow_encoder is None) == (name == "c-simclr")
    assert all(x is not None and x.shape == (IMAGES,) for x in found)
    torch.testing.assert_close(torch.stack(found).mean(), logged, rtol=1e-4, atol=1e-4)  # type: ignore[arg-type]
    assert logged > 0.05


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_answers_and_is_left_as_it_was(name: str) -> None:
    method = _method(name).train()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    features = torch.randn(IMAGES, FEATURES, generator=torch.Generator().manual_seed(1))
    channel, excess = method.channel(features), method.residual_information(features, features)
    assert (channel is not None) == (name in ("c-simclr", "c-byol", "stochcon"))
    assert (excess is not None) == (name in ("c-simclr", "c-byol"))
    assert channel is None or len(channel) == IMAGES
    assert all(module.training for module in method.modules())
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())

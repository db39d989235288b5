"""MVEB as a method: which crop passes where, what learns, and what the slow copy does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small import small_settings
from torch import Tensor, nn

from compressl.errors import UsageError
from compressl.methods import MVEB, create_method
from compressl.settings.methods import MVEBSettings
from compressl.settings.pretrain import PretrainSettings

FEATURES = 12


class Encoder(nn.Module):
    """Takes crops of any size, and keeps the number of images and the side of each it saw."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, FEATURES, 3), nn.BatchNorm2d(FEATURES), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.seen: list[tuple[int, int]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((len(x), x.shape[-1]))
        out: Tensor = self.layers(x)
        return out


def _method(**numbers: Any) -> MVEB:
    method = create_method(small_settings("mveb", **numbers), Encoder(), FEATURES, seed=0)
    assert isinstance(method, MVEB)
    return method


@pytest.fixture
def crops() -> list[Tensor]:
    """Two views and two small crops of 16 images."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(16, 3, 8, 8, generator=generator)
    views = [image + 0.1 * torch.randn(image.shape, generator=generator) for _ in range(2)]
    return [*views, image[:, :, :5, :5], image[:, :, 3:, 3:]]


def _moves(module: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


def test_published_sizes_of_the_head() -> None:
    """ResNet-50: three linear layers of 2048, two norms, one bias."""
    with torch.device("meta"):  # no weights are drawn
        method = MVEB(MVEBSettings(hidden=2048, dim=2048), nn.Identity(), 2048)
    assert sum(p.numel() for p in method.projection.parameters()) == 3 * 2048**2 + 4 * 2048 + 2048
    kinds = [type(layer).__name__ for layer in method.projection]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]


@pytest.mark.parametrize("target", ["ema", "siamese"])
def test_every_crop_passes_alone_and_the_views_alone_reach_the_slow_copy(crops: list[Tensor], target: str) -> None:
    method = _method(target=target)
    method(crops)
    assert method.encoder.seen == [(16, 8), (16, 8), (16, 5), (16, 5)]
    if target == "siamese":
        assert method.target is None
        assert not any("target" in name for name in method.state_dict())
    else:
        assert method.target[0].seen == [(16, 8), (16, 8)]  # type: ignore[index]


def test_no_gradient_reaches_the_slow_copy(crops: list[Tensor]) -> None:
    method = _method()
    method(crops)[0].backward()
    assert _moves(method.encoder)
    assert _moves(method.projection)
    assert method.target is not None
    assert not _moves(method.target)


def test_a_siamese_network_learns_through_both_arguments(crops: list[Tensor]) -> None:
    """At the start the slow copy equals its model: the losses are the same, the gradients of the agreement twofold."""
    gradients = []
    for target in ("ema", "siamese"):
        method = _method(target=target, entropy_weight=0.0).double()
        loss, _ = method([view.double() for view in crops[:2]])
        loss.backward()
        gradients.append((loss, method.projection[0].weight.grad))
    torch.testing.assert_close(gradients[0][0], gradients[1][0])
    torch.testing.assert_close(2 * gradients[0][1], gradients[1][1], rtol=1e-9, atol=1e-12)


def test_the_entropy_learns_from_every_crop(crops: list[Tensor]) -> None:
    method = _method()
    outputs: list[Tensor] = []
    method.projection.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    loss, _ = method(crops)
    entropy = _method(entropy_weight=100.0)
    entropy.projection.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    strong, _ = entropy(crops)
    plain, much = torch.autograd.grad(loss, outputs[:4]), torch.autograd.grad(strong, outputs[4:])
    assert all(b.norm() > 100 * a.norm() for a, b in zip(plain, much, strict=True))


def test_the_slow_copy_follows_after_the_step(crops: list[Tensor]) -> None:
    method = _method(ema=0.5)
    assert method.target is not None
    slow = dict(method.target.named_parameters())
    before, statistics = slow["1.6.bias"].clone(), method.target[0].layers[1].running_mean.clone()  # type: ignore[index]
    with torch.no_grad():
        method.projection[6].bias.add_(1.0)  # type: ignore[union-attr,operator]
    method(crops)
    assert torch.equal(slow["1.6.bias"], before)  # not in forward
    assert not torch.equal(method.target[0].layers[1].running_mean, statistics)  # type: ignore[index]
    method.after_step(0.5)  # the momentum is half-way to 1
    torch.testing.assert_close(slow["1.6.bias"], before + 0.25)
    siamese = _method(target="siamese")
    state = {name: value.clone() for name, value in siamese.state_dict().items()}
    siamese.after_step(0.0)
    assert all(torch.equal(value, state[name]) for name, value in siamese.state_dict().items())


def test_settings_reach_the_objective() -> None:
    numbers = {"entropy_weight": 0.3, "ridge": 0.2, "min_bandwidth": 0.4, "group_size": 4, "estimator": "sphere"}
    objective = _method(**numbers).objective
    assert {name: getattr(objective, name) for name in numbers} == numbers


def test_the_default_group_fits_the_default_batch(crops: list[Tensor]) -> None:
    assert PretrainSettings().batch_size % MVEBSettings().group_size == 0
    with pytest.raises(UsageError, match=r"16 images, fewer than a group of 128.*at least 128, or a group_size of 16"):
        _method(group_size=128)(crops)


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ({"group_size": 1}, "group_size"),
        ({"dim": 1}, "dim"),
        ({"ridge": 0.0}, "ridge"),
        ({"min_bandwidth": -0.1}, "min_bandwidth"),
        ({"entropy_weight": -1.0}, "entropy_weight"),
        ({"ema": 1.5}, "ema"),
    ],
)
def test_impossible_settings_are_named(numbers: dict[str, Any], word: str) -> None:
    assert MVEBSettings().check() == []
    (problem,) = MVEBSettings(**numbers).check()
    assert f"method.{word}" in problem

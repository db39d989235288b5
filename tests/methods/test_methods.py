"""Every method learns from what its paper lets it learn from, and from nothing else."""

from __future__ import annotations

import pytest
import torch
from small import small_settings
from torch import Tensor, nn

from compressl.methods import METHODS, Method, create_method
from compressl.settings.methods import METHODS as SETTINGS

FEATURES = 12


def _encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, FEATURES), nn.BatchNorm1d(FEATURES), nn.ReLU())


def _method(name: str, **numbers: float) -> Method:
    return create_method(small_settings(name, **numbers), _encoder(), FEATURES, seed=0)


@pytest.fixture
def views() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(16, 3, 4, 4, generator=generator)
    return [image + 0.1 * torch.randn(image.shape, generator=generator) for _ in range(2)]


def _noise() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def test_every_method_has_settings_and_every_setting_a_method() -> None:
    assert set(METHODS) == set(SETTINGS)


@pytest.mark.parametrize("name", list(METHODS))
def test_a_step_lowers_the_loss(name: str, views: list[Tensor]) -> None:
    method = _method(name)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(20):
        loss, _ = method(views, _noise())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(0.0)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", list(METHODS))
def test_terms_are_detached_scalars_and_the_loss_is_finite(name: str, views: list[Tensor]) -> None:
    loss, terms = _method(name)(views, _noise())
    assert loss.ndim == 0
    assert torch.isfinite(loss)
    for value in terms.values():
        assert value.ndim == 0
        assert not value.requires_grad
        assert torch.isfinite(value)


@pytest.mark.parametrize("name", ["c-simclr", "c-byol"])
def test_the_noise_is_that_of_the_generator(name: str, views: list[Tensor]) -> None:
    method = _method(name)
    first, again = (method(views, _noise())[0].item() for _ in range(2))
    other = method(views, torch.Generator().manual_seed(3))[0].item()
    assert first == again
    assert first != other


def _gradients(method: Method, loss: Tensor) -> dict[str, float]:
    loss.backward()
    rooms = {name: list(child.parameters()) for name, child in method.named_children()}
    return {
        name: sum(float(p.grad.norm()) for p in parameters if p.grad is not None) for name, parameters in rooms.items()
    }


@pytest.mark.parametrize("name", ["byol", "c-byol"])
def test_no_gradient_reaches_the_slow_copy(name: str, views: list[Tensor]) -> None:
    method = _method(name)
    gradients = _gradients(method, method(views, _noise())[0])
    assert gradients["target"] == 0
    assert min(gradients[room] for room in ("encoder", "projection", "predictor")) > 0


def test_cbyol_trains_the_backward_encoder_through_the_residual_information_alone(views: list[Tensor]) -> None:
    with_price, without = _method("c-byol"), _method("c-byol", beta=0.0)
    assert _gradients(with_price, with_price(views, _noise())[0])["backward_encoder"] > 0
    assert _gradients(without, without(views, _noise())[0])["backward_encoder"] == 0


def test_cbyol_is_deterministic_in_evaluation_mode(views: list[Tensor]) -> None:
    method = _method("c-byol").eval()
    first = method(views, _noise())[0].item()
    other = method(views, torch.Generator().manual_seed(9))[0].item()
    assert first == other


@pytest.mark.parametrize("name", ["byol", "c-byol"])
def test_the_slow_copy_follows_and_keeps_its_own_statistics(name: str, views: list[Tensor]) -> None:
    method = _method(name, ema=0.5)
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.add_(1.0)
    slow = dict(method.target.named_parameters())  # type: ignore[union-attr]
    before = slow["0.1.weight"].clone()
    statistics = method.target[0][2].running_mean.clone()  # type: ignore[index,union-attr]
    method.after_step(0.0)
    torch.testing.assert_close(slow["0.1.weight"], before + 0.5)
    assert torch.equal(method.target[0][2].running_mean, statistics)  # type: ignore[index,union-attr]
    method(views, _noise())
    assert not torch.equal(method.target[0][2].running_mean, statistics)  # type: ignore[index,union-attr]


def test_simclr_sees_both_views_in_one_batch(views: list[Tensor]) -> None:
    """The batch statistics are over both views: shifting one view changes the other's embedding."""
    method = _method("simclr")
    seen: list[Tensor] = []
    method.encoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    method(views)
    assert [len(output) for output in seen] == [32]


def test_compression_makes_views_agree_more(views: list[Tensor]) -> None:
    """beta weighs the residual information: the views' mean directions end nearer to each other."""
    ends = {}
    for beta in (0.0, 2.0):
        method = _method("c-simclr", beta=beta, kappa_e=256.0)
        optimizer = torch.optim.SGD(method.parameters(), lr=0.02)
        for step in range(150):
            loss, terms = method(views, torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ends[beta] = terms["alignment"].item()
    assert ends[2.0] > ends[0.0]


@pytest.mark.parametrize("name", list(METHODS))
def test_the_seed_alone_decides_the_heads(name: str) -> None:
    torch.manual_seed(11)
    first = _method(name).state_dict()
    torch.manual_seed(12)
    again = _method(name).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)


def test_published_sizes_of_the_heads() -> None:
    """Section 5 of the paper's code: ResNet-50, hidden 4096, output 256."""

    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    class Features(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    method = create_method(SETTINGS["c-byol"](hidden=4096, dim=256), Features(), 2048)
    assert count(method.projection) == 9_445_376  # type: ignore[arg-type]
    assert count(method.predictor) + count(method.decoder) == 2_170_880  # type: ignore[arg-type]
    assert count(method.backward_encoder) == 2_105_344  # type: ignore[arg-type]

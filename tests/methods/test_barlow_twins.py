"""Barlow Twins: which head, which passes, and what the scale does."""

from __future__ import annotations

import pytest
import torch
from small import small_settings
from torch import Tensor, nn

from compressl.methods import BarlowTwins
from compressl.objectives import BarlowTwinsLoss
from compressl.settings.methods import BarlowTwinsSettings


def _method(**numbers: object) -> BarlowTwins:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(48, 12), nn.BatchNorm1d(12), nn.ReLU()).double()
    return BarlowTwins(small_settings("barlow-twins", **numbers), encoder, 12).double()  # type: ignore[arg-type]


def _views() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(6, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2)]


def test_the_head_is_that_of_the_paper() -> None:
    with torch.device("meta"):
        method = BarlowTwins(BarlowTwinsSettings(hidden=8192, dim=8192), nn.Identity(), 2048)
    # 2048 -> 8192 -> 8192 -> 8192 without biases, two norms with scale and shift
    assert sum(p.numel() for p in method.parameters()) == 2048 * 8192 + 2 * 8192**2 + 2 * 2 * 8192
    assert isinstance(method.projection[-1], nn.Linear)


def test_the_loss_is_the_scaled_objective_of_two_separate_passes() -> None:
    views = _views()
    plain, scaled = _method(scale=1.0), _method(scale=0.25)
    seen: list[int] = []
    plain.encoder.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    loss, terms = plain(views)
    assert seen == [6, 6]
    expected, _ = BarlowTwinsLoss()(plain.embed(views[0]), plain.embed(views[1]))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    smaller, same_terms = scaled(views)
    assert smaller.item() == pytest.approx(loss.item() / 4, rel=1e-12)
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {name: value.item() for name, value in same_terms.items()}
    )


def test_both_views_carry_a_gradient() -> None:
    method = _method()
    views = [view.requires_grad_() for view in _views()]
    method(views)[0].backward()
    assert all(float(view.grad.norm()) > 1e-6 for view in views)  # type: ignore[union-attr]
    assert all(float(p.grad.norm()) > 0 for p in method.parameters() if p.ndim > 1)  # type: ignore[union-attr]


def test_impossible_settings_get_a_sentence() -> None:
    assert BarlowTwinsSettings().check() == []
    for numbers in ({"dim": 1}, {"off_diagonal": 0.0}, {"scale": 0.0}):
        (problem,) = BarlowTwinsSettings(**numbers).check()  # type: ignore[arg-type]
        assert next(iter(numbers)) in problem

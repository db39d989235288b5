"""VICReg: which expander, which passes, which weights."""

from __future__ import annotations

import pytest
import torch
from small import small_settings
from torch import Tensor, nn

from compressl.methods import VICReg
from compressl.objectives import VICRegLoss
from compressl.settings.methods import VICRegSettings


def _method(**numbers: object) -> VICReg:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(48, 12), nn.BatchNorm1d(12), nn.ReLU()).double()
    return VICReg(small_settings("vicreg", **numbers), encoder, 12).double()  # type: ignore[arg-type]


def _views() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(6, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2)]


def test_the_expander_is_that_of_the_paper() -> None:
    with torch.device("meta"):
        method = VICReg(VICRegSettings(hidden=8192, dim=8192), nn.Identity(), 2048)
    # 2048 -> 8192 -> 8192 -> 8192, two norms with scale and shift; the official code's 2 x 8192 biases before the
    # norms, which have no effect, are not there
    assert sum(p.numel() for p in method.parameters()) == 2048 * 8192 + 2 * 8192**2 + 2 * 2 * 8192
    assert isinstance(method.projection[-1], nn.Linear)


def test_a_bias_before_a_batch_norm_has_no_effect() -> None:
    x = torch.randn(8, 5, dtype=torch.float64)
    norm = nn.BatchNorm1d(5).double()
    torch.testing.assert_close(norm(x + torch.arange(5)), norm(x), rtol=1e-12, atol=1e-12)


def test_the_weights_reach_the_objective_and_each_view_passes_on_its_own() -> None:
    views, numbers = _views(), {"invariance": 2.0, "variance": 3.0, "covariance": 5.0, "epsilon": 0.01}
    method = _method(**numbers)
    seen: list[int] = []
    method.encoder.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    loss, _ = method(views)
    assert seen == [6, 6]
    expected, _ = VICRegLoss(**numbers)(method.embed(views[0]), method.embed(views[1]))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)


def test_both_views_carry_a_gradient() -> None:
    method = _method()
    views = [view.requires_grad_() for view in _views()]
    method(views)[0].backward()
    assert all(float(view.grad.norm()) > 1e-6 for view in views)  # type: ignore[union-attr]
    assert all(float(p.grad.norm()) > 0 for p in method.parameters() if p.ndim > 1)  # type: ignore[union-attr]


def test_impossible_settings_get_a_sentence() -> None:
    assert VICRegSettings().check() == []
    for numbers in ({"dim": 1}, {"invariance": -1.0}, {"variance": -1.0}, {"covariance": -1.0}, {"epsilon": 0.0}):
        (problem,) = VICRegSettings(**numbers).check()  # type: ignore[arg-type]
        assert next(iter(numbers)) in problem
    (problem,) = VICRegSettings(variance=0.0, covariance=0.0).check()
    assert "collapse" in problem

"""SimSiam: which heads, which passes, and what its stop-gradient holds still."""

from __future__ import annotations

import pytest
import torch
from small import small_settings
from torch import Tensor, nn

from compressl.methods import SimSiam
from compressl.objectives.common import unit
from compressl.settings.methods import SimSiamSettings


def _method(**numbers: object) -> SimSiam:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(48, 12), nn.BatchNorm1d(12), nn.ReLU()).double()
    return SimSiam(small_settings("simsiam", **numbers), encoder, 12).double()  # type: ignore[arg-type]


def _views() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(6, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2)]


def test_the_heads_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        method = SimSiam(SimSiamSettings(layers=3), nn.Identity(), 2048)
        small = SimSiam(SimSiamSettings(), nn.Identity(), 512)
    # three layers of 2048 x 2048, two norms with scale and shift; 2048 -> 512 -> 2048 with a norm and an output bias
    assert sum(p.numel() for p in method.projection.parameters()) == 3 * 2048**2 + 2 * 2 * 2048
    assert sum(p.numel() for p in method.predictor.parameters()) == 2 * 2048 * 512 + 2 * 512 + 2048
    assert isinstance(method.projection[-1], nn.BatchNorm1d)
    assert not method.projection[-1].affine
    assert isinstance(method.predictor[-1], nn.Linear)
    assert sum(isinstance(layer, nn.Linear) for layer in small.projection) == 2  # on CIFAR-10


@pytest.mark.parametrize("stop", [True, False])
def test_the_gradient_passes_the_predictor_alone_unless_told_otherwise(stop: bool) -> None:
    method, views = _method(stop_gradient=stop), _views()
    loss, _ = method(views)
    got = torch.autograd.grad(loss, list(method.parameters()))
    z = [method.embed(view) for view in views]
    p = [method.predictor(x) for x in z]
    targets = [x.detach() for x in z] if stop else z
    expected = -sum((unit(p[i]) * unit(targets[1 - i])).sum(1).mean() for i in range(2)) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for ours, theirs in zip(got, torch.autograd.grad(expected, list(method.parameters())), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_a_predictor_that_ignores_its_input_teaches_the_encoder_nothing() -> None:
    """Unless the targets move: then they move towards the constant."""
    for stop in (True, False):
        method = _method(stop_gradient=stop)
        nn.init.zeros_(method.predictor[-1].weight)  # type: ignore[arg-type]
        nn.init.ones_(method.predictor[-1].bias)  # type: ignore[arg-type]
        method(_views())[0].backward()
        assert (method.encoder[1].weight.grad.norm().item() > 1e-6) is not stop  # type: ignore[index, union-attr]


def test_each_view_passes_on_its_own_and_the_projection_is_what_is_watched() -> None:
    method, views = _method(), _views()
    seen: list[int] = []
    method.encoder.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    method(views)
    assert seen == [6, 6]
    z = method.embed(views[0])
    torch.testing.assert_close(z.mean(0), torch.zeros(8, dtype=torch.float64), atol=1e-12, rtol=0)  # the output norm


@pytest.mark.parametrize(("numbers", "name"), [({"dim": 1}, "dim"), ({"bottleneck": 1}, "bottleneck")])
def test_impossible_settings_get_a_sentence(numbers: dict[str, int], name: str) -> None:
    assert SimSiamSettings().check() == []
    (problem,) = SimSiamSettings(**numbers).check()  # type: ignore[arg-type]
    assert name in problem
    assert len(SimSiamSettings(layers=0).check()) == 1

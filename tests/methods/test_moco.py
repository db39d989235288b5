"""MoCo v3: which heads, whose keys, and how the slow copy follows."""

from __future__ import annotations

import pytest
import torch
from small import small_settings
from torch import Tensor, nn

from compressl.methods import MoCo
from compressl.objectives import MoCoLoss
from compressl.settings.methods import MoCoSettings


def _method(**numbers: object) -> MoCo:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(48, 12), nn.BatchNorm1d(12), nn.ReLU()).double()
    return MoCo(small_settings("moco-v3", **numbers), encoder, 12).double()  # type: ignore[arg-type]


def _views() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(6, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2)]


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_heads_are_those_of_the_official_code() -> None:
    with torch.device("meta"):
        resnet = MoCo(MoCoSettings(hidden=4096, dim=256), nn.Identity(), 2048)
        vit = MoCo(MoCoSettings(hidden=4096, dim=256, layers=3, predictor_norm=True), nn.Identity(), 768)
    assert _count(resnet.projection) == 2048 * 4096 + 2 * 4096 + 4096 * 256
    assert _count(resnet.predictor) == 256 * 4096 + 2 * 4096 + 4096 * 256
    assert isinstance(resnet.projection[-1], nn.BatchNorm1d)
    assert not resnet.projection[-1].affine
    assert isinstance(resnet.predictor[-1], nn.Linear)
    assert _count(vit.projection) == 768 * 4096 + 4096**2 + 2 * 2 * 4096 + 4096 * 256
    assert isinstance(vit.predictor[-1], nn.BatchNorm1d)
    assert not vit.predictor[-1].affine


def test_queries_are_predicted_and_keys_are_the_slow_copys() -> None:
    method, views = _method(temperature=0.5), _views()
    with torch.no_grad():
        for p in method.target.parameters():
            p.mul_(1.5).add_(0.1)  # another network by now
    seen: list[int] = []
    method.encoder.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    loss, _ = method(views)
    assert seen == [6, 6]
    queries = [method.predictor(method.embed(view)) for view in views]
    keys = [method.target(view) for view in views]
    expected, _ = MoCoLoss(0.5)(tuple(queries), tuple(keys))  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    fast_keys, _ = MoCoLoss(0.5)(tuple(queries), tuple(method.embed(view) for view in views))  # type: ignore[arg-type]
    assert abs(loss.item() - fast_keys.item()) > 1e-4


def test_no_gradient_reaches_the_slow_copy() -> None:
    method = _method()
    method(_views())[0].backward()
    assert all(p.grad is None and not p.requires_grad for p in method.target.parameters())
    for room in (method.encoder, method.projection, method.predictor):
        assert all(float(p.grad.norm()) > 0 for p in room.parameters() if p.ndim > 1)  # type: ignore[union-attr]


def test_the_slow_copy_follows_encoder_and_projection_along_a_cosine() -> None:
    method = _method(ema=0.9)
    fast = [*method.encoder.parameters(), *method.projection.parameters()]
    slow = list(method.target.parameters())
    assert len(fast) == len(slow)  # without the predictor
    assert all(torch.equal(a, b) for a, b in zip(fast, slow, strict=True))
    with torch.no_grad():
        for p in fast:
            p.add_(1.0)
    for progress, momentum in ((0.0, 0.9), (0.5, 0.95), (1.0, 1.0)):
        before = [p.clone() for p in slow]
        method.after_step(progress)
        for old, new, target in zip(before, slow, fast, strict=True):
            torch.testing.assert_close(new, momentum * old + (1 - momentum) * target, rtol=1e-12, atol=1e-12)


def test_the_slow_copy_keeps_statistics_of_its_own() -> None:
    method = _method()
    norm, slow = method.encoder[2], method.target[0][2]  # type: ignore[index]
    method(_views())
    assert torch.equal(norm.running_mean, slow.running_mean)  # equal weights saw equal views
    with torch.no_grad():
        method.encoder[1].weight.mul_(2.0)  # type: ignore[index, union-attr, operator]
    kept = slow.running_mean.clone()
    method.after_step(0.0)
    assert torch.equal(slow.running_mean, kept)
    method(_views())
    assert not torch.equal(slow.running_mean, kept)
    assert not torch.equal(norm.running_mean, slow.running_mean)


def test_impossible_settings_get_a_sentence() -> None:
    assert MoCoSettings().check() == []
    for numbers in ({"dim": 1}, {"layers": 0}, {"temperature": 0.0}, {"ema": 1.5}):
        (problem,) = MoCoSettings(**numbers).check()  # type: ignore[arg-type]
        assert next(iter(numbers)) in problem

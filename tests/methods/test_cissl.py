"""CISSL: two heads of the published sizes on one joint pass, and both learn."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from small import small_settings
from torch import Tensor, nn

from compressl.methods import CISSL, create_method
from compressl.objectives.common import unit
from compressl.settings.methods import CISSLSettings

FEATURES, IMAGES = 12, 16


def _method(**numbers: Any) -> CISSL:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(48, FEATURES), nn.BatchNorm1d(FEATURES), nn.ReLU())
    return cast(CISSL, create_method(small_settings("cissl", **numbers), encoder, FEATURES))


def _views() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(IMAGES, 3, 4, 4, generator=generator)
    return [image + 0.1 * torch.randn(image.shape, generator=generator) for _ in range(2)]


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("features", "numbers", "teacher", "student"),
    [
        (512, {}, 657_792, 65_920),  # TinyImageNet
        # two hidden layers of 2048 and 128 outputs, each linear layer followed by a norm; the last has a bias
        (2048, {"hidden": 2048, "hidden_layers": 2}, 2 * (2048**2 + 4096) + 129 * 2048 - 2048 + 3 * 128, 262_528),
        (512, {"probe": "mlp"}, 657_792, 657_792),
    ],
)
def test_published_sizes_of_the_heads(features: int, numbers: dict[str, Any], teacher: int, student: int) -> None:
    method = CISSL(CISSLSettings(**numbers), nn.Identity(), features)
    assert (_count(method.teacher), _count(method.student)) == (teacher, student)


def test_the_student_of_a_linear_probe_is_linear() -> None:
    """But for the batch's statistics: in evaluation mode it is an affine map, which the teacher is not."""
    method = _method().eval()
    a, b = torch.randn(2, 4, FEATURES)
    for head, affine in ((method.student, True), (method.teacher, False), (_method(probe="mlp").eval().student, False)):
        middle = (head(a) + head(b)) / 2
        assert torch.allclose(head((a + b) / 2), middle, atol=1e-6) == affine


def test_heads_start_as_in_the_released_code() -> None:
    method = CISSL(CISSLSettings(), nn.Identity(), 512)
    for head in (method.teacher, method.student):
        for layer in head.modules():
            if isinstance(layer, nn.Linear):
                assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
                assert layer.bias is None or not layer.bias.any()


def test_both_views_pass_together_and_the_student_is_the_anchor() -> None:
    method, seen = _method(), []
    method.encoder.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    loss, _ = method(_views())
    assert seen == [2 * IMAGES]
    with torch.no_grad():
        z = method.encoder(torch.cat(_views()))
        v, u = unit(method.student(z)), unit(method.teacher(z))
        log_p = (v @ u.T / method.objective.temperature).log_softmax(1)
        partner = torch.arange(2 * IMAGES).roll(IMAGES)
        expected = -(log_p.diagonal() + log_p[torch.arange(2 * IMAGES), partner]).mean() / 2
        assert torch.equal(method.eval().embed(_views()[0]), method.student(method.encoder(_views()[0])))
    torch.testing.assert_close(loss.detach(), expected)


def test_everything_learns_from_both_branches() -> None:
    method = _method()
    method(_views())[0].backward()
    for room in (method.encoder, method.teacher, method.student):
        assert sum(float(p.grad.norm()) for p in room.parameters() if p.grad is not None) > 1e-3
    whole = method.encoder[1].weight.grad.clone()  # type: ignore[index,union-attr,operator]
    for silent in ("teacher", "student"):
        partial = _method()
        getattr(partial, silent).register_forward_hook(lambda module, inputs, output: output.detach())
        partial(_views())[0].backward()
        assert not torch.allclose(partial.encoder[1].weight.grad, whole)  # type: ignore[index,union-attr,arg-type]


@pytest.mark.parametrize(
    ("numbers", "word"),
    [({"temperature": 0.0}, "temperature"), ({"hidden_layers": 0}, "hidden_layers"), ({"dim": 1}, "dim")],
)
def test_settings_name_what_is_impossible(numbers: dict[str, Any], word: str) -> None:
    assert not CISSLSettings().check()
    (problem,) = CISSLSettings(**numbers).check()
    assert word in problem

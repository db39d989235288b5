"""DISSL: heads of the published sizes, small crops for the student alone, nothing detached, and a weight that falls."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from small import small_settings
from torch import Tensor, nn

from compressl.methods import DISSL, create_method
from compressl.settings.methods import DISSLSettings

FEATURES, IMAGES = 12, 16


def _method(**numbers: Any) -> DISSL:
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, FEATURES), nn.BatchNorm1d(FEATURES), nn.ReLU()
    )
    return cast(DISSL, create_method(small_settings("dissl", **numbers), encoder, FEATURES))


def _views(sizes: tuple[int, ...] = (8, 8)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(IMAGES, 3, 8, 8, generator=generator)
    noisy = [image + 0.1 * torch.randn(image.shape, generator=generator) for _ in sizes]
    return [view[..., :size, :size] for view, size in zip(noisy, sizes, strict=True)]


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("features", "numbers", "teacher", "student"),
    [
        (512, {}, 9_456_640, 8_668_160),
        (2048, {"heads": "imagenet", "hidden": 2048}, 17_851_392, 9_454_592),
        (8192, {"heads": "imagenet", "hidden": 2048}, 18_900_992, 12_600_320),
        # not published: an MLP of two hidden layers of 2048 before the bottleneck, for both
        (512, {"probe": "mlp", "hidden": 2048, "hidden_layers": 2}, *[(512 + 2048 + 512 + 4) * 2048 + 8_406_016] * 2),
    ],
)
def test_published_sizes_of_the_heads(features: int, numbers: dict[str, Any], teacher: int, student: int) -> None:
    with torch.device("meta"):
        method = DISSL(DISSLSettings(**{"clusters": 16384} | numbers), nn.Identity(), features)
    assert (_count(method.teacher), _count(method.student)) == (teacher, student)


def test_the_student_of_a_linear_probe_is_linear() -> None:
    """But for the batch's statistics: in evaluation mode it is an affine map, which the teachers are not."""
    a, b = torch.randn(2, 4, FEATURES, generator=torch.Generator().manual_seed(0)) * 9
    for head, affine in [
        (_method().student, True),
        (_method(heads="imagenet").student, True),
        (_method().teacher, False),
        (_method(heads="imagenet").teacher, False),
        (_method(probe="mlp").student, False),
    ]:
        middle = (head.eval()(a) + head(b)) / 2
        assert torch.allclose(head((a + b) / 2), middle, atol=1e-6) == affine


def test_heads_start_as_in_the_released_code() -> None:
    tiny, imagenet = (
        DISSL(DISSLSettings(heads=heads, clusters=64), nn.Identity(), 512)  # type: ignore[arg-type]
        for heads in ("tinyimagenet", "imagenet")
    )
    for method, narrow in ((tiny, True), (imagenet, False)):
        for head in (method.teacher, method.student):
            for layer in head.modules():
                if isinstance(layer, nn.Linear):
                    std = 0.02 if narrow else (3 * layer.in_features) ** -0.5  # of PyTorch's uniform
                    assert layer.weight.std().item() == pytest.approx(std, rel=0.03)
                    assert layer.bias is None or bool(layer.bias.any()) != narrow


def test_the_residual_block_is_before_the_bottleneck_of_narrow_features_and_behind_that_of_wide_ones() -> None:
    settings = DISSLSettings(heads="imagenet", hidden=4, bottleneck=4, clusters=4)
    for features, width in ((2048, 2048), (2056, 4)):
        widths: list[int] = []
        method = DISSL(settings, nn.Identity(), features).eval()
        for module in method.teacher.modules():
            if type(module).__name__ == "Residual":
                module.register_forward_hook(lambda m, inputs, out, widths=widths: widths.append(out.shape[1]))
        method.teacher(torch.zeros(2, features))
        assert widths == [width]


def test_crops_of_one_size_pass_together_and_small_ones_have_no_code() -> None:
    method = _method()
    passes: dict[str, list[int]] = {"encoder": [], "teacher": [], "student": []}
    for name, seen in passes.items():
        method.get_submodule(name).register_forward_hook(lambda m, i, out, seen=seen: seen.append(len(out)))
    method(_views((8, 8, 6, 6, 6)))
    assert passes == {"encoder": [2 * IMAGES, 3 * IMAGES], "teacher": [2 * IMAGES], "student": [5 * IMAGES]}
    views = _views((8, 8, 6))
    assert method(views)[1]["distillation_divergence"] != method(views[:2])[1]["distillation_divergence"]


def test_the_loss_is_that_of_the_logits() -> None:
    views = _views((8, 8, 6))
    loss, terms = _method()(views)
    other = _method()
    z = torch.cat([other.encoder(torch.cat(views[:2])), other.encoder(views[2])])
    t = [(a / 0.5).softmax(1) for a in other.teacher(z[: 2 * IMAGES]).chunk(2)]
    log_s = [b.log_softmax(1) for b in other.student(z).chunk(3)]
    pairs = [(0, 1), (0, 2), (1, 0), (1, 2)]
    distillation = torch.stack([-(t[i] * log_s[v]).sum(1).mean() for i, v in pairs]).mean()
    invariance = torch.stack([-(t[i] * t[1 - i].log()).sum(1).mean() for i in (0, 1)]).mean()
    entropy = torch.stack([torch.special.entr(x.mean(0)).sum() for x in t]).mean()
    torch.testing.assert_close(loss, distillation - 2.3 * entropy + 0.8 * invariance)
    torch.testing.assert_close(terms["marginal_entropy"], entropy.detach())
    assert torch.equal(_method().eval().embed(views[0]), _method().eval().teacher(_method().eval().encoder(views[0])))


def test_everything_learns_and_the_teacher_from_the_student_too() -> None:
    method = _method()
    method(_views())[0].backward()
    for room in (method.encoder, method.teacher, method.student):
        assert sum(float(p.grad.norm()) for p in room.parameters() if p.grad is not None) > 1e-3
    alone = _method()
    alone.objective.entropy_weight = alone.objective.invariance_weight = 0.0
    alone(_views())[0].backward()  # distillation alone: nothing is detached
    assert sum(float(p.grad.norm()) for p in alone.teacher.parameters() if p.grad is not None) > 1e-3


def test_the_invariance_weight_falls_from_the_entropy_weight() -> None:
    method = _method(entropy_weight=2.5, invariance_weight=0.5, invariance_warmup=0.2)
    weights = []
    for progress in (0.0, 0.1, 0.2, 0.7):
        method.before_step(progress)
        weights.append(method.objective.invariance_weight)
    assert weights == pytest.approx([2.5, 1.5, 0.5, 0.5])
    constant = _method()
    constant.before_step(0.0)
    assert constant.objective.invariance_weight == pytest.approx(0.8)
    assert constant.objective.entropy_weight == 2.3


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ({"entropy_weight": 1.7}, "at least 1 \\+ method.invariance_weight = 1.8; it is 1.7"),
        ({"invariance_weight": -0.1}, "invariance_weight"),
        ({"invariance_warmup": 1.5}, "invariance_warmup"),
        ({"clusters": 1}, "clusters"),
        ({"bottleneck": 0}, "bottleneck"),
        ({"hidden_layers": 0}, "hidden_layers"),
        ({"teacher_temperature": 0.0}, "teacher_temperature"),
    ],
)
def test_settings_name_what_is_impossible(numbers: dict[str, Any], word: str) -> None:
    assert not DISSLSettings().check()
    assert not DISSLSettings(entropy_weight=1.8).check()
    (problem,) = DISSLSettings(**numbers).check()
    with pytest.raises(ValueError, match=word):
        raise ValueError(problem)

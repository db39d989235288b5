"""DINO: a teacher that starts as a copy and follows, a centre that moves once a step, a last layer frozen at first."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from small import small_settings
from torch import Tensor, nn

from compressl.methods import DINO, create_method
from compressl.methods.dino import Cosines
from compressl.models import ema
from compressl.settings.methods import DINOSettings

FEATURES, IMAGES = 12, 16
SIZES = (8, 8, 6, 6, 6)


def _method(**numbers: Any) -> DINO:
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, FEATURES), nn.BatchNorm1d(FEATURES), nn.ReLU()
    )
    return cast(DINO, create_method(small_settings("dino", **numbers), encoder, FEATURES))


def _views(seed: int = 0, sizes: tuple[int, ...] = SIZES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(IMAGES, 3, 8, 8, generator=generator)
    noisy = [image + 0.3 * torch.randn(image.shape, generator=generator) for _ in sizes]
    return [view[..., :size, :size] for view, size in zip(noisy, sizes, strict=True)]


def _outputs(network: nn.Module, views: list[Tensor]) -> list[Tensor]:
    """Logits, as the official code computes them: crops of one size together, the head on all."""
    encoder, head = network.children()
    groups = [views[:2], views[2:]] if len(views) > 2 else [views]
    return list(head(torch.cat([encoder(torch.cat(group)) for group in groups])).detach().chunk(len(views)))


def test_the_teacher_starts_as_a_copy_of_encoder_and_head() -> None:
    method = _method()
    student = nn.Sequential(method.encoder, method.head).state_dict()
    teacher = method.teacher.state_dict()
    assert student.keys() == teacher.keys()
    assert all(torch.equal(student[name], teacher[name]) for name in student)
    assert {p.data_ptr() for p in method.teacher.parameters()}.isdisjoint(
        p.data_ptr() for p in method.head.parameters()
    )


def test_the_loss_is_of_the_teachers_two_views_and_all_crops() -> None:
    method, twin = _method(), _method()
    student = nn.Sequential(twin.encoder, twin.head)
    for step in range(2):  # the second with a centre
        loss, terms = method(_views(step))
        expected, its_terms = twin.objective(_outputs(twin.teacher, _views(step)[:2]), _outputs(student, _views(step)))
        torch.testing.assert_close(loss.detach(), expected)
        torch.testing.assert_close(terms, its_terms)
        torch.testing.assert_close(method.objective.center, twin.objective.center)
    assert method.objective.center.any()


def test_crops_of_one_size_pass_together_and_the_teacher_sees_two() -> None:
    method = _method()
    passes: dict[str, list[int]] = {}
    teacher = dict(zip(("teacher", "teacher's head"), method.teacher.children(), strict=True))
    for name, module in (teacher | {"student": method.encoder, "student's head": method.head}).items():
        module.register_forward_hook(
            lambda module, inputs, output, name=name: passes.setdefault(name, []).append(len(output))  # type: ignore[misc]
        )
    method(_views())
    assert passes == {
        "student": [2 * IMAGES, 3 * IMAGES],
        "student's head": [5 * IMAGES],
        "teacher": [2 * IMAGES],
        "teacher's head": [2 * IMAGES],
    }


def test_no_gradient_reaches_the_teacher() -> None:
    method = _method()
    method(_views())[0].backward()
    assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())
    for room in (method.encoder, method.head.mlp, method.head.last):
        assert sum(float(p.grad.norm()) for p in room.parameters() if p.grad is not None) > 0


def test_the_teacher_follows_with_statistics_of_its_own() -> None:
    method = _method(ema=0.5)
    with torch.no_grad():
        for p in (*method.encoder.parameters(), *method.head.parameters()):
            p.add_(1.0)
    before = [p.clone() for p in method.teacher.parameters()]
    method.after_step(0.5)  # halfway along the cosine: 0.75
    for p, start in zip(method.teacher.parameters(), before, strict=True):
        torch.testing.assert_close(p, start + 0.25)
    statistics = method.teacher.state_dict()["0.3.running_mean"].clone()
    method(_views())
    assert not torch.equal(method.teacher.state_dict()["0.3.running_mean"], statistics)
    assert not torch.equal(method.teacher.state_dict()["0.3.running_mean"], method.encoder[3].running_mean)  # type: ignore[index,union-attr]


def test_schedules_follow_the_progress_alone() -> None:
    temperatures = {"teacher_temperature_start": 0.04, "teacher_temperature": 0.07}
    method = _method(teacher_warmup=0.2, freeze=0.1, **temperatures)
    got = []
    for progress in (0.0, 0.05, 0.1, 0.2, 1.0, 0.1):
        method.before_step(progress)
        got.append((round(method.objective.teacher_temperature, 6), method.head.last.frozen))
    assert got == [(0.04, True), (0.0475, True), (0.055, False), (0.07, False), (0.07, False), (0.055, False)]
    assert _method(**temperatures).objective.teacher_temperature == pytest.approx(0.07)
    assert ema.momentum_at(0.0, DINOSettings().ema) == DINOSettings().ema
    assert ema.momentum_at(1.0, DINOSettings().ema) == 1.0


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_a_frozen_last_layer_stays_whatever_the_optimizer(optimizer: type[torch.optim.Optimizer]) -> None:
    method = _method(freeze=0.5)
    momentum: dict[str, Any] = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    trainable = [p for p in method.parameters() if p.requires_grad]
    last = method.head.last.weight
    assert any(p is last for p in trainable)
    moving = optimizer(trainable, lr=0.1, weight_decay=0.5, **momentum)  # type: ignore[call-arg]
    start, mlp = last.detach().clone(), method.head.mlp[0].weight.detach().clone()
    for step in range(4):
        method.before_step(step / 4)
        method(_views(step))[0].backward()
        assert (last.grad is None) == (step < 2)
        moving.step()
        moving.zero_grad()
        method.after_step(step / 4)
        if step == 1:
            assert torch.equal(last, start)
            assert torch.equal(method.teacher.state_dict()["1.last.weight"], start)
            assert not torch.equal(method.head.mlp[0].weight, mlp)
            assert last not in moving.state
    assert not torch.equal(last, start)


def test_the_last_layer_is_of_cosines() -> None:
    torch.manual_seed(0)
    layer = Cosines(8, 24)
    assert layer.weight.detach().abs().max() <= 8**-0.5  # PyTorch's own start, as in the official code
    x = nn.functional.normalize(torch.randn(5, 8))
    reference = nn.utils.parametrizations.weight_norm(nn.Linear(8, 24, bias=False))
    with torch.no_grad():
        reference.parametrizations.weight.original0.fill_(1.0)  # type: ignore[union-attr]
        reference.parametrizations.weight.original1.copy_(layer.weight)  # type: ignore[union-attr]
    torch.testing.assert_close(layer(x), reference(x))
    target = torch.randn(5, 24)
    (layer(x) * target).sum().backward()
    (reference(x) * target).sum().backward()
    torch.testing.assert_close(layer.weight.grad, reference.parametrizations.weight.original1.grad)  # type: ignore[union-attr]
    out = layer(x)
    with torch.no_grad():
        layer.weight.mul_(torch.linspace(0.1, 5, 24)[:, None])
    torch.testing.assert_close(layer(x), out)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_published_sizes(batch_norm: bool) -> None:
    """ResNet-50: the official head; with batch norm, less the two hidden biases that it would subtract."""
    settings = DINOSettings(outputs=65536, batch_norm=batch_norm)
    with torch.device("meta"):
        method = cast(DINO, create_method(settings, nn.Identity(), 2048))
    official = (2048 * 2048 + 2048) * 2 + (2048 * 256 + 256) + 256 * 65536
    norms = (2 * 2 * 2048 - 2 * 2048) if batch_norm else 0
    assert sum(p.numel() for p in method.head.parameters()) == official + norms
    assert [type(layer).__name__ for layer in method.head.mlp if not isinstance(layer, nn.BatchNorm1d)] == [
        *("Linear", "GELU") * 2,
        "Linear",
    ]


def test_the_heads_weights_start_as_the_official_ones() -> None:
    method = _method(hidden=256, batch_norm=False)
    for layer in method.head.mlp:
        if isinstance(layer, nn.Linear):
            assert not layer.bias.any()
    assert method.head.mlp[2].weight.std().item() == pytest.approx(0.02, rel=0.02)


def test_embeddings_and_outputs_are_on_the_sphere_and_exact_under_autocast() -> None:
    method = _method()
    torch.testing.assert_close(method.embed(_views()[0]).norm(dim=1), torch.ones(IMAGES))
    seen: list[Tensor] = []
    method.objective.register_forward_pre_hook(lambda module, inputs: seen.extend((*inputs[0], *inputs[1])))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = method(_views())
    assert len(seen) == 7
    assert all(x.dtype == torch.float32 and x.abs().max() <= 1 + 1e-6 for x in seen)
    loss.backward()


def test_evaluation_leaves_the_centre_alone() -> None:
    method = _method().eval()
    method(_views())
    assert not method.objective.center.any()
    assert method.objective.center.is_floating_point()  # what the loop restores when it skips a step


def _train(method: DINO, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        method.before_step(step / 8)
        loss, _ = method(_views(step))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step / 8)


@pytest.mark.parametrize("stop", [1, 4, 6])
def test_a_resumed_training_is_the_same_to_the_bit(stop: int) -> None:
    """Stopped while the last layer is frozen, and after."""

    def begin() -> tuple[DINO, torch.optim.Optimizer]:
        method = _method(freeze=0.4, teacher_warmup=0.7)
        trainable = [p for p in method.parameters() if p.requires_grad]
        return method, torch.optim.AdamW(trainable, lr=0.01, weight_decay=0.1)

    whole, optimizer = begin()
    _train(whole, optimizer, range(8))
    part, optimizer = begin()
    _train(part, optimizer, range(stop))
    state = part.state_dict(), optimizer.state_dict()
    resumed, optimizer = begin()
    resumed.load_state_dict(state[0])
    optimizer.load_state_dict(state[1])
    _train(resumed, optimizer, range(stop, 8))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_identical_images_and_dead_features_stay_finite() -> None:
    for scale in (0.0, 1.0):
        method = _method()
        for _ in range(3):
            loss, terms = method([torch.full((IMAGES, 3, size, size), scale) for size in SIZES])
        loss.backward()
        assert all(torch.isfinite(value) for value in (loss, *terms.values()))
        assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ({"bottleneck": 1}, "method.bottleneck"),
        ({"outputs": 1}, "method.outputs"),
        ({"student_temperature": 0.0}, "method.student_temperature"),
        ({"teacher_temperature": -1.0}, "method.teacher_temperature "),
        ({"teacher_temperature_start": 0.0}, "method.teacher_temperature_start"),
        ({"teacher_warmup": 0.0}, "method.teacher_warmup"),
        ({"center_momentum": 1.1}, "method.center_momentum"),
        ({"ema": -0.1}, "method.ema"),
        ({"freeze": 1.0}, "method.freeze"),
    ],
)
def test_impossible_settings(numbers: dict[str, Any], word: str) -> None:
    assert [word in problem for problem in small_settings("dino", **numbers).check()] == [True]
    assert small_settings("dino").check() == []
    assert DINOSettings.compares_images  # several passes a step would move the centre several times
    assert DINOSettings.multi_crop

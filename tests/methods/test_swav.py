"""SwAV: prototypes on the sphere and frozen at first, a queue that waits until it is full, crops of several sizes."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from small import small_settings
from torch import Tensor, nn

from compressl.methods import SwAV, create_method
from compressl.objectives.common import unit
from compressl.settings.methods import SwAVSettings

FEATURES, IMAGES = 12, 16
SIZES = (8, 8, 6, 6)


def _method(**numbers: Any) -> SwAV:
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, FEATURES), nn.BatchNorm1d(FEATURES), nn.ReLU()
    )
    return cast(SwAV, create_method(small_settings("swav", **numbers), encoder, FEATURES))


def _views(seed: int = 0, sizes: tuple[int, ...] = SIZES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(IMAGES, 3, 8, 8, generator=generator)
    noisy = [image + 0.3 * torch.randn(image.shape, generator=generator) for _ in sizes]
    return [view[..., :size, :size] for view, size in zip(noisy, sizes, strict=True)]


def _codes(method: SwAV, views: list[Tensor]) -> list[Tensor]:
    """The embeddings [N, D] of the views, as the official code computes them: crops of one size together."""
    features = torch.cat([method.encoder(torch.cat(views[:2])), method.encoder(torch.cat(views[2:]))])
    return list(unit(method.projection(features).detach()).chunk(len(views)))


def test_the_loss_is_that_of_the_gathered_scores() -> None:
    method, views = _method(), _views()
    loss, terms = method(views)
    z = _codes(_method(), views)
    expected, _ = method.objective([x @ unit(_method().prototypes.weight.detach()).T for x in z])
    torch.testing.assert_close(loss.detach(), expected)
    torch.testing.assert_close(terms["alignment"], (z[0] * z[1]).sum(1).mean())


def test_crops_of_one_size_pass_together_and_all_pass_the_head_together() -> None:
    method = _method()
    passes: list[int] = []
    heads: list[int] = []
    method.encoder.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    method.projection.register_forward_hook(lambda module, inputs, output: heads.append(len(output)))
    method(_views())
    method(_views(sizes=(8, 8)))
    assert passes == [2 * IMAGES, 2 * IMAGES, 2 * IMAGES]
    assert heads == [4 * IMAGES, 2 * IMAGES]


def test_everything_learns() -> None:
    method = _method()
    method(_views())[0].backward()
    for room in (method.encoder, method.projection, method.prototypes):
        assert sum(float(p.grad.norm()) for p in room.parameters() if p.grad is not None) > 0


def test_prototypes_are_put_on_the_sphere_before_use() -> None:
    plain, scaled = _method(), _method()
    with torch.no_grad():
        scaled.prototypes.weight.mul_(torch.linspace(0.5, 9, 12)[:, None])
    losses = [method(_views())[0] for method in (plain, scaled)]
    torch.testing.assert_close(losses[0], losses[1])
    norms = scaled.prototypes.weight.detach().norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(12))
    # the normalisation is no part of the gradient, as in the official code: it also points along the prototypes
    losses[1].backward()
    weight = scaled.prototypes.weight
    assert weight.grad is not None
    assert (weight.grad * weight).sum(1).abs().max() > 1e-4


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_frozen_prototypes_stay_whatever_the_optimizer(optimizer: type[torch.optim.Optimizer]) -> None:
    method = _method(freeze=0.5)
    momentum: dict[str, Any] = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    moving = optimizer(method.parameters(), lr=0.1, weight_decay=0.5, **momentum)  # type: ignore[call-arg]
    start = unit(method.prototypes.weight.detach()).clone()
    encoder = method.encoder[2].weight.detach().clone()  # type: ignore[index,union-attr,operator]
    for step in range(4):
        method.before_step(step / 4)
        method(_views(step))[0].backward()
        assert (method.prototypes.weight.grad is None) == (step < 2)
        moving.step()
        moving.zero_grad()
        if step == 1:
            torch.testing.assert_close(method.prototypes.weight.detach(), start, rtol=0, atol=1e-6)
            assert method.prototypes.weight not in moving.state
            assert not torch.equal(method.encoder[2].weight, encoder)  # type: ignore[index,union-attr]
    assert (unit(method.prototypes.weight.detach()) - start).abs().max() > 1e-3


def test_a_training_without_freeze_learns_prototypes_from_the_first_step() -> None:
    method = _method(freeze=0.0)
    method.before_step(0.0)
    method(_views())[0].backward()
    assert method.prototypes.weight.grad is not None


def test_the_queue_waits_for_its_start_and_holds_the_newest_first() -> None:
    method, twin = _method(queue=40, queue_start=0.5), _method(queue=40, queue_start=0.5)
    method.before_step(0.49)
    method(_views(0))
    assert not method.queue.any()
    method.before_step(0.5)
    seen = []
    for seed in (1, 2, 3):
        seen.append(torch.stack(_codes(twin, _views(seed))[:2]))
        method(_views(seed))
    expected = torch.cat(seen[::-1], dim=1)[:, :40]  # [2, 40, D]: the third batch, the second, half of the first
    torch.testing.assert_close(method.queue, expected)
    assert not method.queue.requires_grad


def test_a_queue_is_used_once_full() -> None:
    """With room for two batches the third is the first whose assignment it enters, with the prototypes of then."""
    method, plain = _method(queue=2 * IMAGES, queue_start=0.0), _method()
    for seed in range(4):
        before = method.queue.clone()
        loss, without = method(_views(seed))[0], plain(_views(seed))[0]
        z = _codes(method, _views(seed))
        c = method.prototypes.weight.detach()
        queued = [x @ c.T for x in before] if seed >= 2 else None
        expected, _ = method.objective([x @ c.T for x in z], queued)
        torch.testing.assert_close(loss.detach(), expected)
        assert torch.allclose(loss, without) == (seed < 2)
        with torch.no_grad():  # as an optimizer would
            for prototypes in (method.prototypes, plain.prototypes):
                prototypes.weight.add_(torch.eye(12, 8))


def test_an_emptier_queue_that_is_loaded_waits_again() -> None:
    method, plain = _method(queue=IMAGES, queue_start=0.0), _method()
    start = {name: value.clone() for name, value in method.state_dict().items()}
    for seed in range(2):
        method(_views(seed))
    method.load_state_dict(start)
    assert torch.equal(method(_views(2))[0], plain(_views(2))[0])
    assert not torch.equal(method(_views(3))[0], plain(_views(3))[0])


def test_evaluation_leaves_the_queue_alone() -> None:
    method = _method(queue=20, queue_start=0.0).eval()
    method(_views())
    assert not method.queue.any()
    assert method.queue.is_floating_point()  # what the loop restores when it skips a step


def test_without_a_queue_nothing_is_kept() -> None:
    method = _method()
    method(_views())
    assert method.queue.shape == (2, 0, 8)


def _train(method: SwAV, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        method.before_step(step / 8)
        loss, _ = method(_views(step))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_a_resumed_training_is_the_same_to_the_bit(stop: int) -> None:
    """Stopped while the prototypes are frozen, while the queue fills, and after."""
    numbers = {"queue": 24, "queue_start": 0.25, "freeze": 0.4}

    def begin() -> tuple[SwAV, torch.optim.Optimizer]:
        method = _method(**numbers)
        return method, torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)

    whole, optimizer = begin()
    _train(whole, optimizer, range(8))
    part, optimizer = begin()
    _train(part, optimizer, range(stop))
    state = part.state_dict(), optimizer.state_dict()
    resumed, optimizer = begin()
    resumed.load_state_dict(state[0])
    optimizer.load_state_dict(state[1])
    _train(resumed, optimizer, range(stop, 8))
    assert whole.queue.any()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_published_sizes() -> None:
    """ResNet-50: the official head and prototypes; less the hidden bias (2048), which batch norm would subtract."""
    method = cast(SwAV, create_method(SwAVSettings(prototypes=3000), nn.Identity(), 2048))
    official = (2048 * 2048 + 2048) + 2 * 2048 + (2048 * 128 + 128)
    assert sum(p.numel() for p in method.projection.parameters()) == official - 2048
    assert [tuple(p.shape) for p in method.prototypes.parameters()] == [(3000, 128)]


def test_scores_are_exact_under_autocast() -> None:
    """In bf16 a cosine is off by 1/512, a code's logit by a twenty-fifth: the scores are computed in float32."""
    method = _method()
    seen: list[Tensor] = []
    method.objective.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = method(_views())
    assert all(scores.dtype == torch.float32 for scores in seen)
    assert loss.dtype == torch.float32
    loss.backward()


def test_identical_images_and_dead_features_stay_finite() -> None:
    for scale in (0.0, 1.0):
        method = _method(queue=16, queue_start=0.0)
        for _ in range(3):
            loss, terms = method([torch.full((IMAGES, 3, size, size), scale) for size in SIZES])
        loss.backward()
        assert loss.item() == pytest.approx(math.log(12), rel=0.2)
        assert all(torch.isfinite(value) for value in terms.values())
        assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ({"dim": 1}, "method.dim"),
        ({"prototypes": 1}, "method.prototypes"),
        ({"iterations": 0}, "method.iterations"),
        ({"temperature": 0.0}, "method.temperature"),
        ({"epsilon": 0.0}, "method.epsilon"),
        ({"queue": -1}, "method.queue"),
        ({"queue_start": 1.0}, "method.queue_start"),
        ({"freeze": -0.1}, "method.freeze"),
    ],
)
def test_impossible_settings(numbers: dict[str, Any], word: str) -> None:
    assert [word in problem for problem in small_settings("swav", **numbers).check()] == [True]
    assert small_settings("swav").check() == []
    assert SwAVSettings.compares_images
    assert SwAVSettings.multi_crop

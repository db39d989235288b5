"""The optimizer and schedule values of the official code, to its digits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressl.models.ema import momentum_at
from compressl.settings.pretrain import OptimizerSettings
from compressl.training.optimizers import LARS, create_optimizer
from compressl.training.schedules import cosine_with_warmup, warmup_steps


def test_lars_reproduces_two_steps_of_the_official_code() -> None:
    w = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64))
    optimizer = LARS([w], lr=4.8, momentum=0.9, weight_decay=1e-6, trust=1e-3)
    expected = [
        [[0.995199936, 2.00959993599936], [2.985599808, 4.01919987199872]],
        [[0.986072085428188, 2.02785527203261], [2.95821625628456, 4.05571054406522]],
    ]
    buffer = torch.zeros(2, 2, dtype=torch.float64)
    for value, trust in zip(expected, (0.010000033333, 0.010016135677365), strict=True):
        w.grad = torch.tensor([[0.1, -0.2], [0.3, -0.4]], dtype=torch.float64)
        gradient = w.grad + 1e-6 * w.detach()
        optimizer.step()
        torch.testing.assert_close(w.detach(), torch.tensor(value, dtype=torch.float64), rtol=0, atol=5e-13)
        added = optimizer.state[w]["momentum_buffer"] - 0.9 * buffer  # lr times trust ratio times gradient
        assert (added / (4.8 * gradient)).flatten().tolist() == pytest.approx([trust] * 4, rel=2e-10)
        buffer = optimizer.state[w]["momentum_buffer"].clone()


def test_lars_leaves_excluded_parameters_unadapted() -> None:
    w = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    optimizer = LARS([w], lr=4.8, momentum=0.9, adapt=False)
    for value in ([0.52, 2.96], [-0.392, 4.784]):
        w.grad = torch.tensor([0.1, -0.2], dtype=torch.float64)
        optimizer.step()
        torch.testing.assert_close(w.detach(), torch.tensor(value, dtype=torch.float64), rtol=0, atol=1e-12)


def test_lars_survives_weights_and_gradients_of_zero() -> None:
    w = nn.Parameter(torch.zeros(2, 2))
    w.grad = torch.zeros(2, 2)
    LARS([w], lr=1.0).step()
    assert torch.equal(w.detach(), torch.zeros(2, 2))


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_norms_and_biases_do_not_decay(name: str) -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    optimizer = create_optimizer(OptimizerSettings(name=name), module)  # type: ignore[arg-type]
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(module[0].weight)}


def test_frozen_parameters_are_left_out() -> None:
    module = nn.Linear(3, 3).requires_grad_(False)
    assert not any(group["params"] for group in create_optimizer(OptimizerSettings(), module).param_groups)


@pytest.mark.parametrize(
    ("peak", "total", "expected"),
    [
        (4.8, 93_836, (0, 0.001535017589, 4.798464982, 4.8, 2.529896174, 1.439395803e-9)),
        (5.6, 93_836, (0, 0.001790853854, 5.598209146, 5.6, 2.951545536, 1.679295103e-9)),
        (3.2, 312_785, (0, 0.001023345059, 3.198976655, 3.2, 1.62538669, 8.2342666e-11)),
        (4.0, 312_785, (0, 0.001279181324, 3.998720819, 4.0, 2.031733362, 1.0292833e-10)),
    ],
)
def test_learning_rates_of_the_official_schedule(peak: float, total: int, expected: tuple[float, ...]) -> None:
    warmup = 3127
    steps = (0, 1, warmup - 1, warmup, total // 2, total - 1)
    got = [cosine_with_warmup(t, total, warmup, peak) for t in steps]
    assert got == pytest.approx(expected, rel=1e-6, abs=1e-15)


def test_schedules_of_the_released_mveb_are_ours_between_other_ends() -> None:
    """Its learning rate starts and ends above 0, and its cosine is that of a training longer by the warm-up."""
    total, warmup, peak, least = 249_600, 3120, 4.8, 0.0048
    for step, expected in [
        (0, 0.0048),
        (1560, 2.4024),
        (3120, 4.8),
        (124_800, 2.4965293342639),
        (249_599, 0.00664964765873),
    ]:
        theirs = least + cosine_with_warmup(step, total + warmup, warmup, peak - least)
        assert theirs == pytest.approx(expected, rel=1e-12)
        if step not in (warmup, 124_800):
            assert cosine_with_warmup(step, total, warmup, peak) != pytest.approx(expected, rel=1e-4)
    for step, expected in [(0, 0.996), (62_400, 0.9965857864376), (124_800, 0.998), (249_599, 1 - 1.6e-13)]:
        assert momentum_at(step / total, 0.996) == pytest.approx(expected, rel=0, abs=1e-13)


def test_warmup_is_at_most_a_tenth() -> None:
    assert warmup_steps(10, 312, 93_836) == 3120
    assert warmup_steps(10, 4, 100) == 10
    assert warmup_steps(10, 4, 5) == 0

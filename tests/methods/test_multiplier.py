"""A weight adapted to a target: it reaches its target, holds it, and is part of the state of a run."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_settings
from torch import Tensor, nn

from compressl.data.digits import DigitsSource
from compressl.methods import create_method
from compressl.methods.multiplier import HIGHEST, LOWEST, Multiplier
from compressl.randomness import generator, permutation
from compressl.settings.views import ViewsSettings
from compressl.views import Views

BIT = math.log(2)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.05, 20), st.floats(0.2, 2), st.floats(0.1, 10))
def test_it_finds_the_weight_of_a_quantity_that_falls_with_it(target: float, power: float, scale: float) -> None:
    weight = Multiplier(start=0.01, target=target)
    solution = (scale * target / target) ** (1 / power)  # of target * scale / weight^power = target
    for _ in range(1000):
        measured = target * scale / weight.value() ** power
        weight.hold(measured)
    if 2 * LOWEST < solution < HIGHEST / 2:
        assert measured.item() == pytest.approx(target, rel=0.05)


@given(st.lists(st.floats(-1e6, 1e6), max_size=50))
def test_it_stays_positive_and_bounded_whatever_is_measured(values: list[float]) -> None:
    weight = Multiplier(start=1.0, target=1.0, rate=5.0)
    for value in values:
        weight.hold(torch.tensor(value))
    assert LOWEST * 0.999 <= weight.value().item() <= HIGHEST * 1.001


def test_it_rests_in_evaluation_mode_and_at_its_target() -> None:
    weight = Multiplier(start=1.0, target=2.0)
    assert weight.hold(torch.tensor(2.0)).item() == 1.0
    weight.eval()
    assert weight.hold(torch.tensor(5.0)).item() == 1.0
    assert weight.train().hold(torch.tensor(5.0)).item() > 1.0


@pytest.mark.parametrize("name", ["c-simclr", "c-byol"])
def test_it_belongs_to_the_state_only_when_asked_for(name: str) -> None:
    def method(**numbers: float) -> nn.Module:
        return create_method(small_settings(name, **numbers), nn.Flatten(), 48)

    assert "multiplier.log_value" in method(target_residual_bits=1.0).state_dict()
    assert not [key for key in method().state_dict() if key.startswith("multiplier")]


def _views_of_digits(steps: int) -> list[list[Tensor]]:
    """Two views of 32 images for each step."""
    images = DigitsSource("train", renderings=1)
    pixels, geometry = torch.from_numpy(images.images), torch.full((len(images), 2), 32)
    views = Views(ViewsSettings(recipe="symbols", size=16).resolve(16), 0)
    chosen = (permutation(len(images), 0, step)[:32] for step in range(steps))
    return [views(pixels[at], geometry[at], at, step) for step, at in enumerate(chosen)]


def _train(batches: list[list[Tensor]], target: float | None) -> list[float]:
    """Residual information above its floor at each step, in bits."""
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(),
    )  # fmt: skip
    numbers = {"hidden": 64, "dim": 32, "beta": 0.0, "target_residual_bits": target}
    method = create_method(small_settings("c-simclr", **numbers), encoder, 32 * 16)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9)
    course = []
    for step, two in enumerate(batches):
        method.before_step(step / len(batches))
        loss, terms = method(two, generator("noise", 0, step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        course.append(float(terms["residual_information_excess"]) / BIT)
    return course


def test_a_target_in_bits_is_reached_and_held_on_the_digits() -> None:
    batches, last = _views_of_digits(400), 100

    def mean(course: list[float]) -> float:
        return sum(course[-last:]) / last

    free, held = mean(_train(batches, None)), mean(_train(batches, 0.8))
    assert free > 1.2  # without a price the code keeps more
    assert held == pytest.approx(0.8, rel=0.2)


def test_a_reward_that_makes_its_quantity_larger_climbs_below_the_target() -> None:
    weight = Multiplier(start=2.0, target=3.0, lowest=1.8, raises=True)
    assert weight.hold(torch.tensor(1.0)).item() > 2.0
    for _ in range(100):
        weight.hold(torch.tensor(10.0))
    assert weight.value().item() == pytest.approx(1.8)


def test_a_target_entropy_moves_the_weight_of_dissl_and_never_below_stability() -> None:
    images = torch.randn(32, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    weights = {}
    for bits in (0.5, 4.9):
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(48, 16))
        method = create_method(small_settings("dissl", target_entropy_bits=bits), encoder, 16)
        for step in range(20):
            method.before_step(step / 20)
            loss, terms = method([images, images])
            loss.backward()
        weights[bits] = float(terms["entropy_weight"])
    assert weights[0.5] == pytest.approx(1.8)  # far more entropy than asked for: the least that is stable
    assert weights[4.9] >= weights[0.5]
    assert float(method.objective.entropy_weight) == pytest.approx(weights[4.9], rel=0.06)  # type: ignore[union-attr]

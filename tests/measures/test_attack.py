"""Projected gradient ascent where the worst image is known in closed form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from compressl.errors import UsageError
from compressl.measures.attack import Norm, pgd

SHAPE = (3, 4, 4)


def images(count: int, low: float = 0.3, high: float = 0.7) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return low + (high - low) * torch.rand(count, *SHAPE, generator=generator)


def linear(classes: int = 2) -> Callable[[Tensor], Tensor]:
    weight = torch.randn(48, classes, generator=torch.Generator().manual_seed(2))
    return lambda x: x.flatten(1) @ weight


def curved() -> Callable[[Tensor], Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.Tanh(), nn.Linear(32, 5))


def difference(classifier: Callable[[Tensor], Tensor]) -> Tensor:
    """Gradient of logit 1 less logit 0 of a linear classifier, [48]."""
    at = classifier(torch.eye(48).view(48, *SHAPE))
    return at[:, 1] - at[:, 0]


@pytest.mark.parametrize("epsilon", [1 / 255, 0.05])
def test_a_linear_classifier_is_pushed_to_the_corner_of_the_cube(epsilon: float) -> None:
    x, y, classifier = images(6), torch.zeros(6, dtype=torch.int64), linear()
    found = pgd(classifier, x, y, epsilon)
    optimum = x + epsilon * difference(classifier).sign().view(SHAPE)
    torch.testing.assert_close(found, optimum, atol=1e-6, rtol=0)


@pytest.mark.parametrize("epsilon", [0.05, 0.25])
def test_a_linear_classifier_is_pushed_along_its_gradient(epsilon: float) -> None:
    x, y, classifier = images(6), torch.zeros(6, dtype=torch.int64), linear()
    found = pgd(classifier, x, y, epsilon, norm="l2", steps=30, step_size=epsilon)
    direction = F.normalize(difference(classifier), dim=0).view(SHAPE)
    torch.testing.assert_close(found, x + epsilon * direction, atol=epsilon * 1e-3, rtol=0)
    gained = ((found - x) * direction).sum((1, 2, 3))
    torch.testing.assert_close(gained, torch.full((6,), epsilon), atol=0, rtol=1e-3)


@given(
    epsilon=st.floats(1e-3, 0.5),
    norm=st.sampled_from(["linf", "l2"]),
    steps=st.integers(1, 6),
    step_size=st.sampled_from([None, 0.01, 10.0]),
)
def test_ball_and_box_are_kept(epsilon: float, norm: Norm, steps: int, step_size: float | None) -> None:
    x, y = images(5, 0.0, 1.0), torch.arange(5)
    found = pgd(curved(), x, y, epsilon, norm=norm, steps=steps, step_size=step_size)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    change = (found - x).flatten(1)
    size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert float(size.max()) <= epsilon * (1 + 1e-4) + 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("step_size", [None, 5.0])
def test_never_kinder_than_the_clean_image(norm: Norm, step_size: float | None) -> None:
    """Even where the steps are far too long."""
    x, classifier = images(20), linear()
    y = torch.arange(20) % 2
    loss = F.cross_entropy(classifier(x), y, reduction="none")
    attacked = pgd(classifier, x, y, 0.03, norm=norm, steps=3, step_size=step_size)
    assert bool((F.cross_entropy(classifier(attacked), y, reduction="none") >= loss - 1e-6).all())


def test_what_was_misclassified_stays_so_and_larger_balls_break_more() -> None:
    x, model = images(60), curved()
    y = torch.arange(60) % 5
    wrong = [
        int((model(pgd(model, x, y, epsilon)).argmax(1) != y).sum()) for epsilon in (0.0, 1 / 255, 8 / 255, 64 / 255)
    ]
    assert wrong == sorted(wrong)
    assert wrong[-1] > wrong[0]
    already = model(x).argmax(1) != y
    assert bool((model(pgd(model, x, y, 0.02)).argmax(1) != y)[already].all())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_image_is_attacked_alike_in_any_batch(norm: Norm) -> None:
    x, y, keys, model = images(7), torch.arange(7) % 5, torch.arange(7) * 3 + 1, curved()
    whole = pgd(model, x, y, 0.05, norm=norm, steps=5, keys=keys)
    assert torch.equal(whole, pgd(model, x, y, 0.05, norm=norm, steps=5, keys=keys))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    again = pgd(model, x[order], y[order], 0.05, norm=norm, steps=5, keys=keys[order])
    torch.testing.assert_close(again, whole[order], atol=1e-5, rtol=0)
    alone = pgd(model, x[2:3], y[2:3], 0.05, norm=norm, steps=5, keys=keys[2:3])
    torch.testing.assert_close(alone, whole[2:3], atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_flat_loss_leaves_the_clean_image(norm: Norm) -> None:
    x = images(3)
    assert torch.equal(pgd(lambda z: 0 * z.flatten(1)[:, :2], x, torch.zeros(3, dtype=torch.int64), 0.1, norm=norm), x)


def test_no_radius_gives_the_image_back_exactly() -> None:
    x = images(3, -0.1, 1.1)
    found = pgd(curved(), x, torch.zeros(3, dtype=torch.int64), 0.0)
    assert torch.equal(found, x)
    assert found is not x


def test_a_sure_classifier_is_attacked_all_the_same() -> None:
    """Where the cross-entropy is zero in float32, its gradient still has a direction."""
    x, y, classifier = images(6), torch.ones(6, dtype=torch.int64), linear()
    sure = lambda z: 1e3 * classifier(z)  # noqa: E731
    assert float(F.cross_entropy(sure(x), y)) == 0
    for norm in ("linf", "l2"):
        gentle, harsh = (pgd(f, x, y, 0.05, norm=norm, step_size=0.05) for f in (classifier, sure))
        torch.testing.assert_close(harsh, gentle, atol=1e-4, rtol=0)


def test_gradients_of_the_classifier_are_left_alone() -> None:
    model = curved()
    with torch.no_grad():
        pgd(model, images(2), torch.tensor([0, 1]), 0.1, steps=2)
    assert all(parameter.grad is None for parameter in model.parameters())  # type: ignore[attr-defined]


def test_faults_are_sentences() -> None:
    x, y = images(1), torch.tensor([0])
    for epsilon, steps in ((-0.1, 3), (float("nan"), 3), (0.1, 0)):
        with pytest.raises(UsageError, match="epsilon >= 0 and steps >= 1"):
            pgd(curved(), x, y, epsilon, steps=steps)
    with pytest.raises(UsageError, match="l3"):
        pgd(curved(), x, y, 0.1, norm="l3")  # type: ignore[arg-type]

"""Color, blur, greyscale and solarisation against torchvision, one image at a time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import ModuleType

import pytest
import torch
from torch import Tensor

from compressl.views import color, color_jitter, denormalize, gaussian_blur, grayscale, normalize, solarize
from compressl.views.blur import kernel_size

LEVEL = 1 / 255
OPERATORS = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")
FACTORS = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0, 1.1, 1.5, 1.8, 2.0, 0.9, 0.4, 3.0])
SHIFTS = torch.tensor([0.0, 0.2, -0.5, 0.5, -0.1, 0.1, 0.33, -0.33, 1e-3, -0.25, 0.4, -0.4])


def assert_images_close(ours: Tensor, theirs: Tensor, limit: float) -> None:
    assert torch.isfinite(ours).all()
    assert ours.min() >= 0
    assert ours.max() <= 1
    assert (ours - theirs).abs().mean((1, 2, 3)).max() < limit


@pytest.mark.parametrize("name", OPERATORS)
def test_color_operators(reference: ModuleType, floats: Tensor, name: str) -> None:
    factors = SHIFTS if name == "adjust_hue" else FACTORS
    before = floats.clone()
    theirs = torch.stack([getattr(reference, name)(x, f) for x, f in zip(floats, factors.tolist(), strict=True)])
    assert_images_close(getattr(color, name)(floats, factors), theirs, 1e-5)
    assert torch.equal(floats, before)
    assert (theirs - floats).abs().mean() > 10 * LEVEL  # the reference did something


def test_hue_of_grey_and_nearly_grey(reference: ModuleType) -> None:
    gray = torch.linspace(0, 1, 64).view(1, 1, 8, 8).expand(1, 3, 8, 8)
    shift = torch.tensor([0.3])
    assert torch.equal(color.adjust_hue(gray, shift), gray)
    nearly = (gray + 1e-6 * torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    torch.testing.assert_close(color.adjust_hue(nearly, shift), nearly, atol=3e-6, rtol=0)


@pytest.mark.parametrize("shift", [-0.5, -0.4, -1 / 6, 1e-3, 0.25, 0.5])
def test_hue_keeps_the_least_and_the_largest_channel(floats: Tensor, shift: float) -> None:
    turned = color.adjust_hue(floats, torch.full((12,), shift))
    torch.testing.assert_close(turned.amax(1), floats.amax(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(turned.amin(1), floats.amin(1), atol=1e-6, rtol=0)
    back = color.adjust_hue(turned, torch.full((12,), -shift))
    torch.testing.assert_close(back, floats, atol=3e-6, rtol=0)


@pytest.mark.parametrize("orders", [range(12), range(12, 24)])
def test_jitter_in_every_order(reference: ModuleType, floats: Tensor, orders: range) -> None:
    """Shuffled orders, so the grouping inside has images to move."""
    generator = torch.Generator().manual_seed(orders.start)
    order = torch.tensor(orders)[torch.randperm(12, generator=generator)]
    factors = 0.4 + 1.2 * torch.rand(12, 4, generator=generator)
    factors[:, 3] = torch.rand(12, generator=generator) - 0.5
    factors[2] = torch.tensor(color.IDENTITY)
    factors[5, 3] = 0.0  # the other three, without hue
    theirs = []
    for image, row, number in zip(floats, factors.tolist(), order.tolist(), strict=True):
        for operator in color.ORDERS[number]:
            image = getattr(reference, OPERATORS[operator])(image, row[operator])
        theirs.append(image)
    before = floats.clone()
    ours = color_jitter(floats, factors, order)
    assert_images_close(ours, torch.stack(theirs), 1e-5)
    assert torch.equal(floats, before)
    assert torch.equal(ours[2], floats[2])
    assert torch.equal(color_jitter(floats, factors, order, inplace=True), ours)
    assert torch.equal(floats, ours)


def test_orders_matter(floats: Tensor) -> None:
    factors = torch.tensor([[1.4, 0.6, 1.4, 0.1]]).expand(24, 4)
    out = color_jitter(floats[5:6].expand(24, -1, -1, -1), factors, torch.arange(24))
    assert all((a - b).abs().mean() > 1e-4 for a, b in pairwise(out))


def test_sorted_groups_need_no_moves(floats: Tensor) -> None:
    order = torch.arange(12) * 2
    factors = torch.tensor([[1.2, 0.7, 1.1, 0.05]]).repeat(12, 1)
    rows = color.jitter_group(factors, order).argsort(stable=True)
    mixed = color_jitter(floats, factors, order)
    assert torch.equal(color_jitter(floats[rows], factors[rows], order[rows]), mixed[rows])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (grayscale, lambda reference, x: reference.rgb_to_grayscale(x, 3)),
        (solarize, lambda reference, x: reference.solarize(x, 0.5)),
    ],
    ids=["grayscale", "solarize"],
)
def test_without_factors(
    reference: ModuleType, floats: Tensor, ours: Callable[[Tensor], Tensor], theirs: Callable[..., Tensor]
) -> None:
    torch.testing.assert_close(ours(floats), theirs(reference, floats), atol=1e-6, rtol=0)


def test_solarize_at_one_half() -> None:
    assert solarize(torch.tensor([0.4999, 0.5, 0.75])).tolist() == pytest.approx([0.4999, 0.5, 0.25])


@pytest.mark.parametrize("size", [16, 20, 32, 64, 65, 96, 130, 224])
def test_blur(reference: ModuleType, size: int) -> None:
    sigma = torch.tensor([0.1, 0.7, 2.0])
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(size))
    kernel = kernel_size(size)
    assert kernel % 2 == 1
    assert abs(kernel - size / 10) <= 1
    theirs = [reference.gaussian_blur(x, [kernel, kernel], [s, s]) for x, s in zip(images, sigma.tolist(), strict=True)]
    torch.testing.assert_close(gaussian_blur(images, sigma), torch.stack(theirs), atol=2e-6, rtol=0)


def test_wider_blurs_smooth_more() -> None:
    image = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    spread = [gaussian_blur(image, torch.tensor([s])).var().item() for s in (0.1, 0.5, 1.0, 2.0)]
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] < 0.2 * spread[0]


def test_normalize_and_back(reference: ModuleType, floats: Tensor) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normalized = normalize(floats, mean, std)
    torch.testing.assert_close(normalized, reference.normalize(floats, list(mean), list(std)))
    torch.testing.assert_close(denormalize(normalized, mean, std), floats, atol=1e-6, rtol=0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_standardize_writes_in_the_memory_format(floats: Tensor, memory_format: torch.memory_format) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    out = torch.full_like(floats, 7.0, memory_format=memory_format)
    color.standardize(floats, mean, std, out)
    assert out.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(out, normalize(floats, mean, std), atol=2e-6, rtol=0)


def test_a_gradient_passes_through_normalize(floats: Tensor) -> None:
    images = floats.clone().requires_grad_()
    normalize(images, (0.5, 0.5, 0.5), (0.1, 0.2, 0.25)).sum().backward()
    assert images.grad is not None
    torch.testing.assert_close(images.grad[0, :, 0, 0], torch.tensor([10.0, 5.0, 4.0]))

"""Crop, flip and resize against torchvision, and what only a real-valued box can show."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

from compressl.views import center_boxes, resized_crop, store_boxes


def random_boxes(n: int, height: int, width: int, seed: int) -> Tensor:
    """Integer boxes of any shape inside height x width; the first is the whole, the second one pixel."""
    generator = torch.Generator().manual_seed(seed)
    extent = torch.tensor([height, width])
    size = 1 + (torch.rand(n, 2, generator=generator) * extent).long()
    corner = (torch.rand(n, 2, generator=generator) * (extent - size + 1)).long()
    boxes = torch.cat([corner, size], 1)
    boxes[0] = torch.tensor([0, 0, height, width])
    boxes[1] = torch.tensor([height - 1, width - 1, 1, 1])
    return boxes


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (32, 32, 32),
        (96, 96, 96),
        (50, 131, 24),
        (200, 90, 7),
        (9, 14, 70),
        (256, 256, 224),
        (300, 257, 129),
        (1, 40, 8),
    ],
)
def test_integer_boxes_equal_torchvision(reference: ModuleType, height: int, width: int, size: int) -> None:
    n = 6
    generator = torch.Generator().manual_seed(height)
    images = torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8, generator=generator)
    boxes = random_boxes(n, height, width, seed=size)
    flip = torch.arange(n) % 3 == 0
    ours, mirrored = resized_crop(images, boxes, size), resized_crop(images, boxes, size, flip)
    assert ours.shape == (n, 3, size, size)
    assert ours.dtype == torch.float32
    for image, box, flipped, our, our_mirrored in zip(images, boxes.tolist(), flip, ours, mirrored, strict=True):
        theirs = reference.resized_crop(image.permute(2, 0, 1).float() / 255, *box, [size, size], antialias=True)
        assert (our - theirs).abs().max() < 2e-5
        assert (our_mirrored - (theirs.flip(2) if flipped else theirs)).abs().max() < 2e-5


@pytest.mark.parametrize("size", [8, 32, 70])
def test_products_of_a_few_images_at_a_time(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (7, 20, 30, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    boxes, flip = random_boxes(7, 20, 30, seed=6), torch.arange(7) % 2 == 0
    whole = resized_crop(images, boxes, size, flip)
    for few in (1, 3, 7):
        monkeypatch.setattr("compressl.views.resample._CPU_PART", few * 3 * 20 * 30)
        assert torch.equal(resized_crop(images, boxes, size, flip), whole)


def test_border_pixels_weigh_their_share() -> None:
    images = torch.tensor([0, 60, 200, 255], dtype=torch.uint8).view(1, 1, 4, 1).expand(1, 4, 4, 3)
    # Columns 1.5 to 3.25 to one pixel: centre 2.375, triangle of half width 1.75, shares 1/2, 1, 1/4.
    weights = torch.tensor([0.5, 1.0, 0.25]) * (1 - (torch.tensor([1.5, 2.5, 3.5]) - 2.375).abs() / 1.75)
    expected = (weights * torch.tensor([60.0, 200.0, 255.0])).sum() / weights.sum() / 255
    got = resized_crop(images, torch.tensor([[0, 1.5, 4, 1.75]]), 1)
    torch.testing.assert_close(got, expected.expand(1, 3, 1, 1), atol=1e-6, rtol=0)


def test_real_boxes_move_continuously() -> None:
    images = torch.randint(0, 256, (1, 40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    box = torch.tensor([[7.0, 11.0, 20.0, 17.0]])
    for size in (8, 70):
        moved = resized_crop(images, box + torch.tensor([1e-3, -1e-3, 1e-3, -1e-3]), size)
        assert (moved - resized_crop(images, box, size)).abs().max() < 5e-3


@pytest.mark.parametrize("size", [5, 90])
def test_constant_images_stay_constant(size: int) -> None:
    values = torch.tensor([0, 1, 128, 255], dtype=torch.uint8)
    images = values.view(4, 1, 1, 1).expand(4, 33, 64, 3)
    boxes = torch.tensor([[0, 0, 33, 64], [0.3, 63.9, 0.001, 0.1], [10.5, 3.25, 20.1, 9.9], [32.99, 0, 0.01, 64]])
    out = resized_crop(images, boxes, size)
    assert (out - (values.float() / 255).view(4, 1, 1, 1)).abs().max() < 1e-6
    assert out.min() >= 0
    assert out.max() <= 1


def test_large_views_read_all_they_reach() -> None:
    """Long outputs are made in blocks that read windows of the input: a seam would show on a ramp."""
    ramp = torch.arange(100, dtype=torch.uint8).view(1, 1, 100, 1).expand(1, 100, 100, 3)
    out = resized_crop(ramp, torch.tensor([[0, 0, 100, 100]]), 225)
    steps = out[0, 0, 0].diff()[2:-2]
    torch.testing.assert_close(steps, torch.full_like(steps, 100 / 225 / 255), atol=2e-6, rtol=0)


def tensor_float(x: Tensor) -> Tensor:
    """Rounded to the 10 bits after the point that a GPU multiplies with in TF32."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


@pytest.mark.parametrize("size", [32, 130])
def test_low_precision_products_stay_within_a_grey_level(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, and the sums between the products, are rounded by at most 2**-11 each: 3 * 255 / 2**11 = 0.37 levels."""
    images = torch.randint(0, 256, (6, 150, 150, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    images[0] = 255
    boxes = random_boxes(6, 150, 150, seed=3)
    exact, product = resized_crop(images, boxes, size), torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: product(*(tensor_float(t.contiguous()) for t in (a, b))))
    error = (resized_crop(images, boxes, size) - exact).abs().max() * 255
    assert 0.01 < error < 0.375  # it did round


@pytest.mark.parametrize(
    ("height", "width", "proportion"), [(100, 100, 0.875), (57, 200, 0.875), (201, 90, 1.0), (1, 9, 0.1)]
)
def test_center_boxes_equal_torchvision(reference: ModuleType, height: int, width: int, proportion: float) -> None:
    top, left, h, w = center_boxes(torch.tensor([[height, width]]), proportion)[0].tolist()
    assert h == w == max(1, round(proportion * min(height, width)))
    place = torch.arange(height * width, dtype=torch.float32).view(1, height, width)
    assert torch.equal(place[:, top : top + h, left : left + w], reference.center_crop(place, [h, w]))


def test_store_boxes() -> None:
    boxes = torch.tensor([[10, 20, 30, 40], [0, 0, 4000, 1]])
    geometry = torch.tensor([[64, 64], [4000, 1]])
    expected = torch.tensor([[10.0, 20, 30, 40], [0, 0, 64, 64]])
    assert torch.equal(store_boxes(boxes, geometry, (64, 64)), expected)


def test_refusals() -> None:
    images = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match="uint8"):
        resized_crop(images.float(), torch.zeros(2, 4), 8)
    with pytest.raises(ValueError, match="uint8"):
        resized_crop(images.permute(0, 3, 1, 2), torch.zeros(2, 4), 8)
    with pytest.raises(ValueError, match="one row per image"):
        resized_crop(images, torch.zeros(1, 4), 8)
    with pytest.raises(ValueError, match="proportion"):
        center_boxes(torch.tensor([[8, 8]]), 1.5)

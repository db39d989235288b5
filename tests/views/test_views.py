"""The whole pipeline: pure in the index, sound at the extremes, the same crop from a squashed store."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import fields, replace
from itertools import pairwise
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compressl.errors import UsageError
from compressl.settings.views import RECIPES, ViewRecipe
from compressl.views import ViewParameters, Views, apply, color, denormalize, draw, store_boxes

FULL = ViewRecipe(size=24, blur=0.5, solarize=0.5, grayscale=0.3)
COUNT = 14


def batch(seed: int = 0, side: int = 30, n: int = COUNT) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, side, side, 3), dtype=torch.uint8, generator=generator)
    geometry = torch.randint(1, 400, (n, 2), generator=generator)
    return images, geometry, torch.randint(0, 10**9, (n,), generator=generator)


def equal(a: ViewParameters, b: ViewParameters) -> bool:
    return all(torch.equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))


@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(COUNT)), cuts=st.sets(st.integers(1, COUNT - 1), max_size=4))
def test_batch_and_order_do_not_matter(order: list[int], cuts: set[int]) -> None:
    """To the bit, for views that are made in batches, in blocks and one at a time."""
    images, geometry, indices = batch()
    views = Views((FULL, replace(FULL, size=16, blur=0.0), replace(FULL, size=72), replace(FULL, size=130)), seed=5)
    whole, drawn = views(images, geometry, indices, epoch=2), views.draw(geometry, indices, 2)
    edges = [0, *sorted(cuts), COUNT]
    for first, last in pairwise(edges):
        rows = torch.tensor(order[first:last])
        part = (images[rows], geometry[rows], indices[rows])
        assert all(equal(a, b[rows]) for a, b in zip(views.draw(*part[1:], 2), drawn, strict=True))
        assert all(torch.equal(a, b[rows]) for a, b in zip(views(*part, epoch=2), whole, strict=True))


@pytest.mark.parametrize("size", [24, 72, 130])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_parts_and_threads_do_not_matter(size: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images, geometry, indices = batch()
    recipe = replace(FULL, size=size)
    parameters = draw(recipe, geometry, indices, 3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = apply(images, geometry, parameters, recipe)
        torch.set_num_threads(threads)
        assert torch.equal(apply(images, geometry, parameters, recipe), whole)
        monkeypatch.setattr("compressl.views.pipeline._CPU_PART", 1)
        monkeypatch.setattr("compressl.views.resample._CPU_PART", 1)
        assert torch.equal(apply(images, geometry, parameters, recipe), whole)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [130, 224])
@pytest.mark.parametrize("side", [30, 150])
def test_one_at_a_time_is_the_batch(size: int, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images, geometry, indices = batch(side=side)
    recipe = replace(FULL, size=size)
    parameters = draw(recipe, geometry, indices, 4)
    for normalized in (True, False):
        alone = apply(images, geometry, parameters, recipe, normalized)
        with monkeypatch.context() as patch:
            patch.setattr("compressl.views.pipeline._LARGE", size)
            batched = apply(images, geometry, parameters, recipe, normalized)
        # In [0, 1] a difference of 2e-6 on average; the standard deviations of the channels divide it.
        assert (alone - batched).abs().mean((1, 2, 3)).max() < 2e-6 / (0.22 if normalized else 1)


@pytest.mark.parametrize("size", [24, 130])
def test_channels_last(size: int) -> None:
    images, geometry, indices = batch()
    recipe = replace(FULL, size=size)
    parameters = draw(recipe, geometry, indices, 3)
    plain = apply(images, geometry, parameters, recipe)
    last = apply(images, geometry, parameters, recipe, memory_format=torch.channels_last)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, plain)


@pytest.mark.parametrize("size", [24, 130])
def test_inference_mode(size: int) -> None:
    images, geometry, indices = batch()
    views = Views((replace(FULL, size=size),), seed=0)
    with torch.inference_mode():
        inside = views(images, geometry, indices, epoch=0)[0]
    assert torch.equal(inside, views(images, geometry, indices, epoch=0)[0])


def test_seed_epoch_and_view_matter() -> None:
    images, geometry, indices = batch()
    twice = (FULL, FULL)
    a, b = Views(twice, seed=0)(images, geometry, indices, epoch=0)
    again, _ = Views(twice, seed=0)(images, geometry, indices, epoch=0)
    other_epoch, _ = Views(twice, seed=0)(images, geometry, indices, epoch=1)
    other_seed, _ = Views(twice, seed=1)(images, geometry, indices, epoch=0)
    assert torch.equal(a, again)
    for other in (b, other_epoch, other_seed):
        assert ((a - other).abs().mean((1, 2, 3)) > 0.05).all()


def test_every_operator_in_its_order(reference: ModuleType) -> None:
    """One image after another through torchvision's operators, with the drawn parameters."""
    images, _, indices = batch(n=32)
    geometry = torch.full((32, 2), 30)
    drawn = draw(FULL, geometry, indices, 11)
    assert 0 < int((drawn.sigma > 0).sum()) < 32
    ours = apply(images, geometry, drawn, FULL, normalized=False)
    jitter = (
        reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation, reference.adjust_hue,
    )  # fmt: skip
    for n in range(32):
        x = reference.resized_crop(images[n].permute(2, 0, 1).float() / 255, *drawn.boxes[n].tolist(), [24, 24])
        x = reference.horizontal_flip(x) if drawn.flip[n] else x
        for operator in color.ORDERS[int(drawn.order[n])]:
            x = jitter[operator](x, drawn.factors[n, operator].item())
        x = reference.rgb_to_grayscale(x, 3) if drawn.grayscale[n] else x
        x = reference.gaussian_blur(x, [3, 3], [drawn.sigma[n].item()] * 2) if drawn.sigma[n] else x
        x = reference.solarize(x, 0.5) if drawn.solarize[n] else x
        assert (ours[n] - x).abs().mean() < 1e-4
    normalized = apply(images, geometry, drawn, FULL)
    torch.testing.assert_close(denormalize(normalized, FULL.mean, FULL.std), ours, atol=1e-6, rtol=0)


def test_a_squashed_store_gives_the_crop_of_the_original() -> None:
    down, across = torch.meshgrid(torch.linspace(0, 3, 128), torch.linspace(0, 6, 256), indexing="ij")
    picture = torch.stack([down.sin() ** 2, across.cos() ** 2, (down * across).sin() ** 2])[None]
    squashed = torch.nn.functional.interpolate(picture, size=(128, 128), mode="bilinear", antialias=True)
    original, stored = ((p * 255).round().to(torch.uint8).permute(0, 2, 3, 1) for p in (picture, squashed))
    geometry = torch.tensor([[128, 256]])
    crop = ViewRecipe(size=64, jitter=0.0, grayscale=0.0)
    swapped = []
    for number in range(20):
        drawn = draw(crop, geometry, torch.tensor([number]), 1)
        a = apply(original, geometry, drawn, crop, normalized=False)
        b = apply(stored, geometry, drawn, crop, normalized=False)
        assert (a - b).abs().mean() < 0.01
        swapped.append((a - apply(stored, torch.tensor([[128, 128]]), drawn, crop, normalized=False)).abs().mean())
    assert torch.stack(swapped).mean() > 0.05  # without the geometry, another crop


def test_many_crops() -> None:
    images, geometry, indices = batch()
    sizes = (32, 32, 12, 1, 70)
    views = Views(tuple(ViewRecipe(size=size, blur=0.5) for size in sizes), seed=0)
    out = views(images, geometry.to(torch.int32), indices, epoch=0)
    assert [tuple(view.shape) for view in out] == [(COUNT, 3, size, size) for size in sizes]
    assert all(view.dtype == torch.float32 and view.is_contiguous() and not view.requires_grad for view in out)
    assert [len(view) for view in views(images[:0], geometry[:0], indices[:0], epoch=0)] == [0] * 5


@pytest.mark.parametrize("recipe", [*RECIPES["byol"], RECIPES["simclr"][0], RECIPES["small"][0]])
@pytest.mark.parametrize("store", [1, 2, 40])
def test_extremes_stay_finite(recipe: ViewRecipe, store: int) -> None:
    shapes = [(1, 1), (1, 4000), (4000, 1), (2, 3), (100_000, 100_000), (40, 40)]
    geometry = torch.tensor(shapes).repeat(3, 1)
    images = torch.randint(0, 256, (18, store, store, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:6], images[6:12] = 0, 255
    recipe = replace(recipe, size=40)
    for index in range(0, 180, 18):
        drawn = draw(recipe, geometry, torch.arange(index, index + 18), 0)
        boxes = store_boxes(drawn.boxes, geometry, (store, store))
        assert (boxes[:, :2] + boxes[:, 2:] <= store * (1 + 1e-6)).all()
        out = apply(images, geometry, drawn, recipe, normalized=False)
        assert torch.isfinite(out).all()
        assert out.min() >= 0
        assert out.max() <= 1


def test_a_constant_image_stays_constant_without_color() -> None:
    recipe = ViewRecipe(size=40, jitter=0.0, grayscale=0.0, blur=1.0)
    images = torch.tensor([10, 100, 250], dtype=torch.uint8).expand(8, 50, 50, 3)
    geometry = torch.tensor([[37, 410]]).expand(8, 2)
    out = apply(images, geometry, draw(recipe, geometry, torch.arange(8), 0), recipe, normalized=False)
    assert (out - torch.tensor([10, 100, 250]).view(3, 1, 1) / 255).abs().max() < 2e-6


def test_probability_zero_is_the_plain_resize(reference: ModuleType) -> None:
    images, _, indices = batch()
    nothing = {"flip": 0.0, "jitter": 0.0, "grayscale": 0.0, "blur": 0.0, "solarize": 0.0}
    whole = ViewRecipe(size=30, min_scale=1.0, min_ratio=1.0, max_ratio=1.0, **nothing)
    geometry = torch.full((COUNT, 2), 30)
    out = apply(images, geometry, draw(whole, geometry, indices, 0), whole, normalized=False)
    torch.testing.assert_close(out, images.permute(0, 3, 1, 2) / 255, atol=1e-6, rtol=0)


def test_autocast_has_no_say() -> None:
    images, geometry, indices = batch()
    views = Views((FULL,), seed=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = views(images, geometry, indices, epoch=0)[0]
    assert torch.equal(inside, views(images, geometry, indices, epoch=0)[0])


@pytest.mark.parametrize("size", [24, 130])
def test_no_value_leaves_the_device(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU does, on tensors without values: to wait for one is an error."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it knows no such device
    images, geometry, indices = batch()
    out = Views((replace(FULL, size=size),), seed=0)(images.to("meta"), geometry, indices, epoch=0)[0]
    assert out.is_meta
    assert out.shape == (COUNT, 3, size, size)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="No GPU here.")
def test_a_gpu_gives_the_same_views() -> None:
    images, geometry, indices = batch()
    for size in (24, 130):
        views = Views((replace(FULL, size=size),), seed=0)
        ours = views(images.cuda(), geometry, indices, epoch=0)[0]
        assert ours.is_cuda
        assert (ours.cpu() - views(images, geometry, indices, epoch=0)[0]).abs().mean() < 1e-5
        assert torch.equal(ours, views(images.cuda(), geometry.cuda(), indices.cuda(), epoch=0)[0])


def test_refusals() -> None:
    images, geometry, indices = batch()
    with pytest.raises(UsageError, match="at least one recipe"):
        Views((), seed=0)
    with pytest.raises(UsageError, match="View 1: flip is a probability"):
        Views((FULL, replace(FULL, flip=2.0)), seed=0)
    with pytest.raises(ValueError, match="14 images need 14"):
        apply(images, geometry, draw(FULL, geometry[:3], indices[:3], 0), FULL)
    with pytest.raises(ValueError, match="uint8"):
        apply(images.float(), geometry, draw(FULL, geometry, indices, 0), FULL)

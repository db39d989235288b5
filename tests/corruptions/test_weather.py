"""Weather against definitions read pixel by pixel."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor

from compressl.corruptions.filters import motion, plasma
from compressl.corruptions.weather import frost_texture

Apply = Callable[..., Tensor]
Scenes = Callable[[int, int], Tensor]
Array = np.ndarray[Any, Any]


def plasma_by_points(side: int, decay: float, draws: Any) -> Array:
    """Diamonds and squares, one point after another, on a torus."""
    draws.uniform(1)
    field, step, w = np.zeros((side, side)), side, 100.0
    while step >= 2:
        half, n = step // 2, side // step
        noise = w * w * (2 * draws.uniform(3, n, n)[0].numpy() - 1)
        at = lambda r, c: field[r % side, c % side]  # noqa: E731
        cells = [(i, j, i * step, j * step) for i in range(n) for j in range(n)]
        for i, j, r, c in cells:
            around = at(r, c) + at(r + step, c) + at(r, c + step) + at(r + step, c + step)
            field[r + half, c + half] = around / 4 + noise[0, i, j]
        centers = field.copy()
        for i, j, r, c in cells:
            across = at(r, c) + at(r, c + step) + centers[r + half, c + half] + centers[(r - half) % side, c + half]
            along = at(r, c) + at(r + step, c) + centers[r + half, c + half] + centers[r + half, (c - half) % side]
            field[r, c + half] = across / 4 + noise[1, i, j]
            field[r + half, c] = along / 4 + noise[2, i, j]
        step, w = half, w / decay
    field -= field.min()
    return np.asarray(field / field.max())


@pytest.mark.parametrize(("size", "decay"), [(16, 3.0), (32, 1.75), (20, 2.0)])
def test_plasma_is_of_diamonds_and_squares(size: int, decay: float, draws: Apply) -> None:
    side = 1 << (size - 1).bit_length()
    expected = plasma_by_points(side, decay, draws("fog", 1))[:size, :size]
    np.testing.assert_allclose(plasma(draws("fog", 1), size, decay)[0].numpy(), expected, atol=1e-12)


def test_plasma_of_a_slow_decay_is_rough(draws: Apply) -> None:
    def roughness(decay: float) -> float:
        field = plasma(draws("fog", 1, 40), 64, decay)
        return float((field[:, 1:] - field[:, :-1]).square().mean())

    assert roughness(1.4) > 4 * roughness(2.0)
    assert roughness(2.0) > 1.2 * roughness(3.0)


def test_fog_is_plasma_at_the_images_brightness(scenes: Scenes, apply: Apply, draws: Apply) -> None:
    x = scenes(2, 32).double()
    out = apply("fog", x, draws("fog", 1, 2), (0.75, 2.5))
    cloud = plasma(draws("fog", 1, 2), 32, 2.5)
    for image, mist, foggy in zip(x, cloud, out, strict=True):
        largest = image.max()
        torch.testing.assert_close(foggy, (image + 0.75 * mist) * largest / (largest + 0.75))


def test_snow(scenes: Scenes, apply: Apply, draws: Apply) -> None:
    x, numbers = scenes(1, 32).double(), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9)
    out = apply("snow", x, draws("snow", 1), numbers)[0].numpy()
    again = draws("snow", 1)
    layer = 0.15 + 0.3 * again.normal(1, 32, 32)[0, 0].numpy()
    kept = 19  # the 32 / 1.75 middle pixels, rounded up, become 33
    layer = scipy.ndimage.zoom(layer[6 : 6 + kept, 6 : 6 + kept], 1.75, order=1, mode="nearest")[:32, :32]
    layer = np.where(layer < 0.55, 0, np.clip(layer, 0, 1))
    angle = -135 + 90 * again.uniform(1)[:, 0]
    assert -135 < float(angle) < -45
    flakes = motion(torch.from_numpy(layer)[None, None], 10, 4, angle)[0, 0].numpy()
    image = x[0].numpy()
    grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    expected = 0.9 * image + 0.1 * np.maximum(image, grey * 1.5 + 0.5) + flakes + np.rot90(flakes, 2)
    np.testing.assert_allclose(out, expected, atol=1e-12)


def test_frost_blends_a_texture(scenes: Scenes, apply: Apply, draws: Apply) -> None:
    x = scenes(3, 32).double()
    texture = frost_texture(draws("frost", 2, 3), 32)
    torch.testing.assert_close(apply("frost", x, draws("frost", 2, 3), (0.9, 0.4)), 0.9 * x + 0.4 * texture)
    assert 0 <= texture.min() < 0.3
    assert 0.7 < texture.max() < 1.3
    red, _, blue = texture.mean((0, 2, 3))
    assert blue > red
    assert texture.std((2, 3)).min() > 0.08, "nothing to see"


def test_brightness_raises_the_value_of_hsv(scenes: Scenes, apply: Apply, draws: Apply) -> None:
    x = scenes(1, 16).double()
    x[0, :, 0, :3] = torch.tensor([[0.0, 1.0, 0.3], [0.0, 1.0, 0.3], [0.0, 1.0, 0.3]])
    out = apply("brightness", x, draws("brightness", 1), (0.2,)).clamp(0, 1)
    for before, after in zip(x[0].flatten(1).T.tolist(), out[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, min(value + 0.2, 1)), abs=1e-12)

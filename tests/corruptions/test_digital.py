"""Digital kinds against colorsys, Pillow and scipy."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image
from torch import Tensor

from compressl.corruptions import corrupt

Apply = Callable[..., Tensor]
Scenes = Callable[[int, int], Tensor]
SMALL = {
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg_compression": (80, 65, 58, 50, 40),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
}
LARGE = {
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    "jpeg_compression": (25, 18, 15, 10, 7),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
}


def bytes_of(image: Tensor) -> np.ndarray[Any, Any]:
    return (image * 255).round().byte().permute(1, 2, 0).numpy()


def numbers(kind: str, size: int) -> tuple[float, ...]:
    return (SMALL if size <= 64 else LARGE)[kind]


@pytest.mark.parametrize("size", [16, 31, 32, 96])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_pixelate_is_pillows(size: int, severity: int, scenes: Scenes) -> None:
    images, c = scenes(2, size), numbers("pixelate", size)[severity - 1]
    for image, out in zip(images, corrupt(images, "pixelate", severity, torch.arange(2)), strict=True):
        small = Image.fromarray(bytes_of(image)).resize((int(size * c), int(size * c)), Image.Resampling.BOX)
        assert np.array_equal(bytes_of(out), np.asarray(small.resize((size, size), Image.Resampling.BOX)))


@pytest.mark.parametrize("size", [16, 32, 96])
@pytest.mark.parametrize("severity", [1, 5])
def test_jpeg_is_pillows(size: int, severity: int, scenes: Scenes) -> None:
    images, quality = scenes(2, size), int(numbers("jpeg_compression", size)[severity - 1])
    for image, out in zip(images, corrupt(images, "jpeg_compression", severity, torch.arange(2)), strict=True):
        stream = io.BytesIO()
        Image.fromarray(bytes_of(image)).save(stream, "JPEG", quality=quality)
        assert np.array_equal(bytes_of(out), np.asarray(Image.open(stream)))


@pytest.mark.parametrize("size", [32, 96])
@pytest.mark.parametrize("severity", [1, 5])
def test_contrast_shrinks_about_the_mean_of_a_channel(size: int, severity: int, scenes: Scenes) -> None:
    images, c = scenes(2, size), numbers("contrast", size)[severity - 1]
    out = corrupt(images, "contrast", severity, torch.arange(2))
    mean = images.mean((2, 3), keepdim=True)
    expected = ((images - mean) * c + mean).clamp(0, 1)
    assert float((expected - out).min()) > -1e-5
    assert float((expected - out).max()) < 1 / 255 + 1e-5, "cut to levels from below"


@pytest.mark.parametrize(("a", "b"), [(0.3, 0), (1.5, 0), (2.5, 0.2), (20, 0.2)])
def test_saturate_changes_the_saturation_of_hsv(a: float, b: float, scenes: Scenes, apply: Apply, draws: Apply) -> None:
    x = scenes(1, 16).double()
    x[0, :, 0, :3] = torch.tensor([0.0, 1.0, 0.3]).double()  # grey has the hue of red
    out = apply("saturate", x, draws("saturate", 1), (a, b))
    for before, after in zip(x[0].flatten(1).T.tolist(), out[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb(hue, min(saturation * a + b, 1), value), abs=1e-9)


@pytest.mark.parametrize("share", [(0.0, 0.0, 0.08), (0.08, 0.06, 0.06), (0.1, 0.03, 0.0)])
def test_elastic_transform_is_an_affine_map_and_a_flow(
    share: tuple[float, float, float], scenes: Scenes, apply: Apply, draws: Apply
) -> None:
    size, x = 24, scenes(1, 24).double()
    out = apply("elastic_transform", x, draws("elastic_transform", 1), share)[0].numpy()
    again, (strength, sigma, shift) = draws("elastic_transform", 1), (size * number for number in share)
    points = np.array([[20.0, 20], [20, 4], [4, 4]])  # 12 +- 8, (column, row)
    moved = points + shift * (2 * again.uniform(3, 2)[0].numpy() - 1)
    homogeneous = np.c_[moved, np.ones(3)]
    columns, rows = (np.linalg.solve(homogeneous, points[:, axis]) for axis in (0, 1))
    flow = 2 * again.uniform(2, size, size)[0].numpy() - 1
    if sigma > 0:
        flow = scipy.ndimage.gaussian_filter(flow, sigma, mode="reflect", truncate=3, axes=(1, 2))
    for channel in range(3):
        image, warped, bent = x[0, channel].numpy(), np.empty((size, size)), np.empty((size, size))
        for r in range(size):
            for c in range(size):
                at = (rows @ (c, r, 1), columns @ (c, r, 1))
                warped[r, c] = scipy.ndimage.map_coordinates(image, np.array(at)[:, None], order=1, mode="mirror")[0]
        place = np.mgrid[:size, :size] + strength * flow[::-1]
        bent = scipy.ndimage.map_coordinates(warped, place, order=1, mode="reflect")
        np.testing.assert_allclose(out[channel], bent, atol=1e-9)
    assert np.abs(out - x[0].numpy()).mean() > 0.01

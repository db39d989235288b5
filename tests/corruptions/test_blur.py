"""Blur against scipy and against definitions read pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor

from compressl.corruptions.blur import disk
from compressl.corruptions.filters import clipped_zoom, correlate, gaussian, mirror, motion, reflect, separable

Apply = Callable[..., Tensor]
Scenes = Callable[[int, int], Tensor]


def impulse(size: int) -> Tensor:
    x = torch.zeros(1, 3, size, size, dtype=torch.float64)
    x[:, :, size // 2, size // 2] = 1
    return x


@pytest.mark.parametrize("sigma", [0.05, 0.4, 1.0, 3.0, 6.0])
def test_gaussian_blur_is_scipys(sigma: float, scenes: Scenes, apply: Apply, draws: Apply) -> None:
    for size in (16, 33):
        x = scenes(2, size).double()
        expected = scipy.ndimage.gaussian_filter(x.numpy(), sigma, mode="nearest", axes=(2, 3), truncate=4)
        blurred = apply("gaussian_blur", x, draws("gaussian_blur", 1), (sigma,))
        np.testing.assert_allclose(blurred.numpy(), expected, atol=1e-12)
    expected = scipy.ndimage.gaussian_filter(x.numpy(), sigma, mode="reflect", axes=(2, 3), truncate=3)
    np.testing.assert_allclose(gaussian(x, sigma, reflect, truncate=3).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("radius", "sigma"), [(0.3, 0.4), (0.5, 0.6), (1, 0.2), (1.5, 0.1), (3, 0.1), (6, 0.5)])
def test_defocus_kernels_are_symmetric_disks(radius: float, sigma: float) -> None:
    kernel = disk(radius, sigma)
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-12)
    for other in (kernel.T, kernel.flip(0), kernel.flip(1)):
        torch.testing.assert_close(kernel, other, atol=1e-15, rtol=0)
    offset = torch.arange(len(kernel)) - len(kernel) // 2
    distance = (offset[:, None].square() + offset.square()).double().sqrt()
    assert float(kernel[distance > radius + 1.5].sum()) == 0
    inner = kernel[distance <= radius - 1.5]
    assert len(inner) == 0 or float(inner.max() - inner.min()) < 1e-12, "not flat inside"


@pytest.mark.parametrize(("radius", "total"), [(8, 1.0129755), (10, 1.0107858)])
def test_the_two_largest_disks_are_as_published(radius: float, total: float) -> None:
    assert float(disk(radius, 0.5).sum()) == pytest.approx(total, abs=1e-6)  # of OpenCV's kernels


def test_defocus_spreads_an_impulse_by_its_kernel(apply: Apply, draws: Apply) -> None:
    out = apply("defocus_blur", impulse(33), draws("defocus_blur", 1), (3, 0.5))[0, 0]
    torch.testing.assert_close(out[8:25, 8:25], disk(3, 0.5))
    assert float(out.sum()) == pytest.approx(1)


def test_correlation_mirrors_at_the_border(scenes: Scenes) -> None:
    x, kernel = scenes(1, 16).double(), torch.arange(25, dtype=torch.float64).view(5, 5)
    expected = scipy.ndimage.correlate(x[0, 0].numpy(), kernel.numpy(), mode="mirror")
    np.testing.assert_allclose(correlate(x, kernel)[0, 0].numpy(), expected, rtol=1e-12)
    assert mirror(torch.arange(-9, 9), 4).tolist() == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2]


@pytest.mark.parametrize("angle", [-135.0, -45.0, -20.0, 0.0, 30.0, 45.0])
def test_motion_is_half_a_gaussian_along_a_line(angle: float) -> None:
    x = impulse(41)
    out = motion(x, radius=9, sigma=2.5, degrees=torch.tensor([angle]))[0, 0]
    weights = [math.exp(-(i**2) / (2 * 2.5**2)) for i in range(19)]
    expected = torch.zeros(41, 41, dtype=torch.float64)
    for i, weight in enumerate(weights):
        down, right = (math.ceil(i * f(math.radians(angle)) - 0.5) for f in (math.sin, math.cos))
        expected[20 - down, 20 - right] += weight / sum(weights)
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=0)
    assert float(out.sum()) == pytest.approx(1)


def test_motion_has_a_direction_for_each_image(scenes: Scenes) -> None:
    x, degrees = scenes(3, 24).double(), torch.tensor([10.0, -40.0, -90.0])
    together = motion(x, 6, 2, degrees)
    for i in range(3):
        torch.testing.assert_close(motion(x[i : i + 1], 6, 2, degrees[i : i + 1])[0], together[i])
    flat = torch.full((1, 3, 24, 24), 0.3, dtype=torch.float64)
    torch.testing.assert_close(motion(flat, 6, 2, degrees[:1]), flat)


@pytest.mark.parametrize("size", [16, 32, 97])
@pytest.mark.parametrize("factor", [1.0, 1.04, 1.21, 1.75, 2.5, 4.5])
def test_zoom_is_scipys(size: int, factor: float, scenes: Scenes) -> None:
    x = scenes(1, size).double()
    kept = math.ceil(size / factor)
    first = (size - kept) // 2
    middle = x[0, 0, first : first + kept, first : first + kept].numpy()
    zoomed = scipy.ndimage.zoom(middle, factor, order=1, mode="nearest")
    trim = (len(zoomed) - size) // 2
    out = separable(x, clipped_zoom(size, factor))[0, 0].numpy()
    np.testing.assert_allclose(out, zoomed[trim : trim + size, trim : trim + size], atol=1e-12)


def test_zoom_blur_is_the_mean_of_its_zooms(scenes: Scenes, apply: Apply, draws: Apply) -> None:
    x = scenes(1, 32).double()
    zooms = [separable(x, clipped_zoom(32, 1 + 0.01 * i)) for i in range(11)]
    out = apply("zoom_blur", x, draws("zoom_blur", 1), (1.105, 0.01))
    torch.testing.assert_close(out, (x + sum(zooms)) / 12)


def glass(x: np.ndarray[Any, Any], u: np.ndarray[Any, Any], delta: int) -> np.ndarray[Any, Any]:
    """One pass over the pixels [3, S, S], last to first, as the published code does it."""
    size, x = x.shape[1], x.copy()
    for h in range(size - delta, delta, -1):
        for w in range(size - delta, delta, -1):
            down, right = (math.floor(u[axis, h, w] * 2 * delta) - delta for axis in (0, 1))
            x[:, h, w] = x[:, h + down, w + right]
    return x


@pytest.mark.parametrize(("delta", "times"), [(1, 1), (1, 2), (4, 2)])
def test_glass_follows_chains_of_replaced_pixels(
    delta: int, times: int, scenes: Scenes, apply: Apply, draws: Apply
) -> None:
    x = scenes(2, 20).double()
    again = draws("glass_blur", 1, 2)
    out = apply("glass_blur", x, draws("glass_blur", 1, 2), (0.05, delta, times))  # 0.05 px blurs nothing
    expected = x.numpy()
    for _ in range(times):
        u = again.uniform(2, 20, 20).numpy()
        expected = np.stack([glass(image, numbers, delta) for image, numbers in zip(expected, u, strict=True)])
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-12)
    assert (expected != x.numpy()).any()

"""Large views on a CPU, one at a time.

A single image passes through exactly the operators that it drew, each a call with plain numbers, while all of it is in
the cache of a core. Nothing is sorted, gathered or masked. The pixels are those of the operators on batches.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compressl.settings.views import ViewRecipe
from compressl.views.blur import kernel_size
from compressl.views.color import BRIGHTNESS, CONTRAST, HUE, IDENTITY, LUMA, ORDERS, adjust_hue_, luma, standardize
from compressl.views.parameters import ViewParameters
from compressl.views.resample import Bands, blocks_of, triangle


def augment_each(
    images: Tensor, boxes: Tensor, parameters: ViewParameters, recipe: ViewRecipe, normalized: bool, out: Tensor
) -> None:
    """Fill ``out`` [N, 3, size, size] with the views of uint8 [N, H, W, 3]; ``boxes`` [N, 4] are in their pixels."""
    _, height, width, _ = images.shape
    size = recipe.size
    rows = triangle(boxes[:, 0], boxes[:, 2], height, size)
    columns = triangle(boxes[:, 1], boxes[:, 3], width, size, parameters.flip)
    rows.weights.mul_(1 / 255)  # the way from uint8 to [0, 1] without a pass of its own
    row_windows, column_windows = _windows(rows), _windows(columns)
    factors, order = parameters.factors.tolist(), parameters.order.tolist()
    gray, sigma, inverted = parameters.grayscale.tolist(), parameters.sigma.tolist(), parameters.solarize.tolist()

    x = torch.empty(3, size, size)
    for i, image in enumerate(images):
        (r, last_r), (c, last_c) = _span(row_windows[i]), _span(column_windows[i])
        crop = image[r:last_r, c:last_c].to(torch.float32).view(last_r - r, -1)  # [h, w * 3]
        # Each product moves the axis it resizes to the end, so the channels come to the front.
        y = crop.new_empty(crop.shape[1], size)
        _project(crop, row_windows[i], rows.weights[i], y)
        _project(y.view(-1, 3 * size), column_windows[i], columns.weights[i], x.view(-1, size))
        x.clamp_max_(1)
        _jitter_(x, factors[i], order[i])
        if gray[i]:
            x.copy_(luma(x[None])[0])
        if sigma[i]:
            _blur_(x, sigma[i])
        if inverted[i]:
            torch.minimum(x, 1 - x, out=x)
        if normalized:
            standardize(x[None], recipe.mean, recipe.std, out=out[i : i + 1])
        else:
            out[i].copy_(x)


def _windows(bands: Bands) -> list[list[tuple[int, int]]]:
    """First and one after the last input pixel that each block of each image reads."""
    last = (bands.first + bands.count[:, None]).clamp_max_(bands.extent)
    return torch.stack([bands.first, last], 2).to(torch.int64).tolist()


def _span(windows: list[tuple[int, int]]) -> tuple[int, int]:
    return min(first for first, _ in windows), max(last for _, last in windows)


def _project(x: Tensor, windows: list[tuple[int, int]], weights: Tensor, out: Tensor) -> None:
    """Weighted sums along the first axis of ``x`` [L, R], which moves to the end of ``out`` [R, size].

    Row 0 of ``x`` is the first pixel of all ``windows``; ``weights`` are [blocks, block, reach].
    """
    origin, block = _span(windows)[0], weights.shape[1]
    for b, (first, last) in enumerate(windows):
        made = out[:, b * block : (b + 1) * block]
        torch.mm(x[first - origin : last - origin].t(), weights[b, : made.shape[1], : last - first].t(), out=made)


def _jitter_(x: Tensor, factors: list[float], order: int) -> None:
    for operator in ORDERS[order]:
        factor = factors[operator]
        if factor == IDENTITY[operator]:
            continue
        if operator == HUE:
            adjust_hue_(x[None], torch.tensor([factor]))
        elif operator == BRIGHTNESS:
            x.mul_(factor).clamp_(0, 1)
        elif operator == CONTRAST:
            mean = sum(share * channel for share, channel in zip(LUMA, x.mean((1, 2)).tolist(), strict=True))
            x.mul_(factor).add_((1 - factor) * mean).clamp_(0, 1)
        else:
            torch.add(luma(x[None])[0].mul_(1 - factor), x, alpha=factor, out=x).clamp_(0, 1)


def _blur_(x: Tensor, sigma: float) -> None:
    """:func:`compressl.views.blur.gaussian_blur` of [3, size, size], without the taps that float32 does not see."""
    size = x.shape[2]
    radius = min(kernel_size(size) // 2, math.ceil(5.6 * sigma))  # beyond, weights are below 2e-7 of the largest
    kernel = (-0.5 * (torch.arange(-radius, radius + 1) / sigma).square()).exp_()
    kernel /= kernel.sum()
    _, block = blocks_of(size)
    reach = block + 2 * radius
    # Row o reads the 2 * radius + 1 pixels from o on: the kernel again and again, a row one longer than the band.
    band = torch.nn.functional.pad(kernel, (0, block)).repeat(block)[: block * reach].view(block, reach)
    padded = torch.nn.functional.pad(x, (radius,) * 4, mode="reflect")
    y = x.new_empty(3, size + 2 * radius, size)
    for first in range(0, size, block):
        last = min(size, first + block)
        weights = band[: last - first, : last - first + 2 * radius]
        torch.mm(padded.flatten(0, 1)[:, first : last + 2 * radius], weights.t(), out=y.flatten(0, 1)[:, first:last])
    for first in range(0, size, block):
        last = min(size, first + block)
        weights = band[: last - first, : last - first + 2 * radius]
        for channel, blurred in zip(y, x, strict=True):
            torch.mm(weights, channel[first : last + 2 * radius], out=blurred[first:last])

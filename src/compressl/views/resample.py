"""Crop, flip and resize a batch, a box of its own for each image, in two batched matrix products."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from compressl.devices import sent

_BLOCK = 32
"""Longest run of output pixels that one product makes. A row of weights is zero outside a few input pixels; short runs
that read only the input they reach save most of the multiplications of large views."""

_CPU_PART = 1 << 18
"""Input values multiplied at a time on a CPU: what the first product makes is still in the cache for the second."""


def center_boxes(geometry: Tensor, proportion: float = 1.0) -> Tensor:
    """The central square whose side is ``proportion`` of the shorter side, int64 [N, 4] (top, left, height, width).

    ``geometry`` is integer [N, 2] (height, width); the boxes are in its pixels. Offsets are rounded as in torchvision's
    ``center_crop``.

    Raises:
        ValueError: ``proportion`` is not in (0, 1].

    >>> center_boxes(torch.tensor([[100, 200]]), 0.875).tolist()
    [[6, 56, 88, 88]]
    """
    if not 0 < proportion <= 1:
        raise ValueError(f"proportion is a share of the shorter side, in (0, 1]; it is {proportion}.")
    side = (geometry.amin(1).to(torch.float64) * proportion).round().clamp_min(1)
    corner = ((geometry.to(torch.float64) - side[:, None]) / 2).round()
    return torch.cat([corner, side[:, None], side[:, None]], 1).to(torch.int64)


def store_boxes(boxes: Tensor, geometry: Tensor, store: tuple[int, int]) -> Tensor:
    """Boxes in original pixels as boxes in a stored array, float32 [N, 4] (top, left, height, width).

    ``boxes`` is [N, 4] in an image of ``geometry`` [N, 2] (height, width) that was resized, each axis on its own, to
    ``store`` (height, width). An image stored at its original size keeps its box.

    >>> store_boxes(torch.tensor([[0, 50, 100, 100]]), torch.tensor([[100, 200]]), (64, 64)).tolist()
    [[0.0, 16.0, 64.0, 32.0]]
    """
    extent = torch.tensor(store, dtype=torch.float64, device=geometry.device)
    return (boxes.to(torch.float64) * (extent / geometry).repeat(1, 2)).to(torch.float32)


def resized_crop(images: Tensor, boxes: Tensor, size: int, flip: Tensor | None = None) -> Tensor:
    """The part of each image inside its box, resized to a square: float32 [N, 3, size, size] in [0, 1].

    Antialiased bilinear: an output pixel is a mean of the pixels within ``max(scale, 1)`` of its centre, weighted by
    a triangle that is cut off at the box. For integer boxes this is torchvision's ``resized_crop(antialias=True)`` of
    the float image. A pixel that a box covers in part has that share of its weight. (Under
    ``torch.set_float32_matmul_precision("high")`` a GPU rounds to about a fifth of a grey level.)

    Args:
        images: uint8 [N, H, W, 3].
        boxes: [N, 4], top, left, height, width in pixels of ``images``, real numbers, inside the image.
        size: side of the output, pixels.
        flip: bool [N], mirror these left to right.

    Raises:
        ValueError: a shape or type other than these.

    >>> images = torch.arange(4, dtype=torch.uint8).reshape(1, 2, 2, 1).expand(1, 2, 2, 3) * 85
    >>> resized_crop(images, torch.tensor([[0, 0, 2, 2]]), 2, flip=torch.tensor([True]))[0, 0].mul(3).round().tolist()
    [[1.0, 0.0], [3.0, 2.0]]
    """
    check_images(images)
    n, height, width, _ = images.shape
    if boxes.shape != (n, 4):
        raise ValueError(f"boxes must be [{n}, 4], one row per image; they are {list(boxes.shape)}.")
    boxes = sent(boxes.to(torch.float32), images.device)
    flip = None if flip is None else sent(flip, images.device)
    rows = triangle(boxes[:, 0], boxes[:, 2], height, size)
    columns = triangle(boxes[:, 1], boxes[:, 3], width, size, flip)
    rows.weights.mul_(1 / 255)  # the way from uint8 to [0, 1] without a pass of its own
    out = torch.empty(n, 3, size, size, device=images.device)
    few = max(1, _CPU_PART // (3 * height * width) if images.device.type == "cpu" else n)
    for first in range(0, n, few):
        part = slice(first, first + few)
        # Each product moves the axis it resizes to the end, so the channels come to the front without a transposition.
        x = images[part].reshape(-1, 1, height, width * 3)
        x = project(x, rows[part].taps(), rows[part].weights, size)  # [n, 1, W * 3, size]
        x = x.reshape(-1, 1, width, 3 * size)
        x = project(x, columns[part].taps(), columns[part].weights, size)  # [n, 1, 3 * size, size]
        torch.clamp_max(x.reshape(-1, 3, size, size), 1, out=out[part])
    return out


def check_images(images: Tensor) -> None:
    """Raise a ValueError if these are not uint8 [N, H, W, 3]."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"images must be uint8 [N, H, W, 3]; they are {images.dtype} {list(images.shape)}.")


def project(x: Tensor, taps: Tensor | None, weights: Tensor, size: int) -> Tensor:
    """Weighted sums along axis 2, which moves to the end: [N, P, L, R] to float32 [N, P, R, size].

    Output pixels ``b * block`` to ``(b + 1) * block - 1`` are ``weights[:, b]`` [N, block, reach] times the input
    pixels ``taps[:, b]`` [N or 1, reach]. ``taps`` None: there is one block, and it reads the whole axis. All planes
    share the weights of their image.
    """
    n, planes, length, rest = x.shape
    _, blocks, block, reach = weights.shape
    if taps is None and planes == 1:
        windows = x
    else:
        if taps is None:
            taps = torch.arange(length, device=x.device).view(1, 1, length)
        first = torch.arange(n * planes, device=x.device).view(n, 1, 1, planes) * length
        index = (taps[..., None] + first).reshape(-1)  # by image, block, tap, plane
        # index_select on whole rows copies memory; advanced indexing would go element by element.
        windows = x.reshape(n * planes * length, rest).index_select(0, index)
    windows = windows.view(n * blocks, reach, planes * rest).to(torch.float32)
    matrices = weights.reshape(n * blocks, block, reach)
    out = torch.bmm(windows.transpose(1, 2), matrices.transpose(1, 2))  # [N * blocks, P * R, block]
    out = out.view(n, blocks, planes * rest, block).transpose(1, 2).reshape(n, planes, rest, blocks * block)
    return out[..., :size]


def blocks_of(size: int) -> tuple[int, int]:
    """How many blocks an output axis is cut into, and their length; together they may overshoot ``size``."""
    blocks = math.ceil(size / _BLOCK) if size > 2 * _BLOCK else 1
    return blocks, math.ceil(size / blocks)


@dataclass(frozen=True)
class Bands:
    """A resize of one axis of N images: a band of weights for each run of output pixels."""

    extent: int
    """Pixels of the input axis."""
    first: Tensor
    """float32 [N, blocks]: the first input pixel that each block reads."""
    count: Tensor
    """float32 [N]: how many of them it reads at most; later weights are 0."""
    weights: Tensor
    """float32 [N, blocks, block, reach]: of the pixels from ``first`` on. Pixels beyond the axis weigh 0."""

    def __getitem__(self, part: slice) -> Bands:
        """Those of some of the images."""
        return Bands(self.extent, self.first[part], self.count[part], self.weights[part])

    def taps(self) -> Tensor | None:
        """As :func:`project` takes them."""
        _, blocks, _, reach = self.weights.shape
        if blocks == 1:
            return None
        pixel = self.first[:, :, None] + torch.arange(reach, device=self.first.device)
        return pixel.clamp_max_(self.extent - 1).to(torch.int64)


def triangle(start: Tensor, length: Tensor, extent: int, size: int, flip: Tensor | None = None) -> Bands:
    """Resize the intervals ``start``, ``length`` (float32 [N], pixels) of an axis of ``extent`` pixels to ``size``."""
    blocks, block = blocks_of(size)
    widest = extent / size  # no interval is longer than the axis: a bound on the reach that needs no data
    reach = min(extent, math.ceil(block * widest + 2 * max(widest, 1)) + 2)
    if blocks > 1 and reach > 0.7 * extent:
        blocks, block, reach = 1, size, extent
    elif blocks == 1:
        reach = extent

    start, length = start[:, None, None], length[:, None, None]
    scale = length / size
    support = scale.clamp_min(1)
    output = torch.arange(blocks * block, device=start.device).clamp_max_(size - 1).view(1, blocks, block)
    if flip is not None:
        output = torch.where(flip[:, None, None], size - 1 - output, output)
    center = (output + 0.5) * scale  # [N, blocks, block], from the start of the interval, as everything below
    if blocks == 1:
        first = torch.zeros_like(start)
        count = torch.full_like(start, extent)
    else:
        first = (start + center.amin(2, keepdim=True) - support).floor_().clamp_(0, extent - 1)  # [N, blocks, 1]
        count = (block * scale + 2 * support).ceil_().add_(2).clamp_max_(reach)
    pixel = first + torch.arange(reach, device=start.device) - start  # left edges, [N, blocks, reach]
    covered = (torch.minimum(pixel + 1, length) - pixel.clamp_min(0)).clamp_min_(0)
    weights = ((pixel + 0.5) / support)[:, :, None] - (center / support)[..., None]  # [N, blocks, block, reach]
    torch.sub(1.0, weights.abs_(), out=weights)
    weights.clamp_min_(0).mul_(covered[:, :, None])
    # A box inside the image always covers something; the bound keeps a box on its very edge finite.
    weights.mul_(weights.sum(3, keepdim=True).clamp_min_(1e-12).reciprocal_())
    return Bands(extent, first[..., 0], count[:, 0, 0], weights)

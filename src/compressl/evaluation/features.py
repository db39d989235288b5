"""Features of images, once; every measure works on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressl.devices import autocast
from compressl.views import center_boxes, normalize, resized_crop, store_boxes

if TYPE_CHECKING:
    from compressl.data.store import PackedImages

SMALL = 64  # images up to this side are seen whole, larger ones by their central 7/8, as is usual
PROPORTION = 0.875
PIXEL_SIDE = 16  # raw pixels are compared at this side at most: more cost minutes and gain nothing


def central_views(
    packed: PackedImages,
    indices: NDArray[np.int64],
    size: int,
    batch_size: int,
    device: torch.device,
    side: int | None = None,
) -> Iterator[Tensor]:
    """The deterministic view of each image, batch by batch: float32 [B, 3, side, side] in [0, 1].

    The crop is that of an encoder whose views are ``size`` pixels wide; ``side`` is what it is resized to, ``size`` by
    default.
    """
    for start in range(0, len(indices), batch_size):
        images, geometry = (torch.from_numpy(x).to(device) for x in packed.gather(indices[start : start + batch_size]))
        proportion = 1.0 if size <= SMALL else PROPORTION
        boxes = store_boxes(center_boxes(geometry, proportion), geometry, (images.shape[1], images.shape[2]))
        yield resized_crop(images, boxes, side or size)


@torch.no_grad()
def extract(
    encoder: nn.Module,
    packed: PackedImages,
    indices: NDArray[np.int64],
    *,
    size: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    device: torch.device,
    precision: str = "fp32",
    batch_size: int = 512,
    advance: Callable[[int], None] = lambda images: None,
) -> Tensor:
    """Features of images, float32 [N, F] on the device, the encoder in evaluation mode.

    Args:
        indices: which images of the packed set, int64 [N].
        advance: told how many images are done.
    """
    was_training = encoder.training
    encoder.eval()
    features = []
    try:
        for view in central_views(packed, indices, size, batch_size, device):
            x = normalize(view, mean, std).contiguous(memory_format=torch.channels_last)
            with autocast(device, precision):
                features.append(encoder(x).float())
            advance(len(view))
    finally:
        encoder.train(was_training)
    return torch.cat(features)


@torch.no_grad()
def raw_pixels(
    packed: PackedImages, indices: NDArray[np.int64], size: int, device: torch.device, batch_size: int = 512
) -> Tensor:
    """The pixels of the same crop at 16 x 16 or less, less each image's mean: float32 [N, 3 * side * side]."""
    side = min(size, PIXEL_SIDE)
    rows = [view.flatten(1) for view in central_views(packed, indices, size, batch_size, device, side)]
    pixels = torch.cat(rows)
    return pixels - pixels.mean(1, keepdim=True)

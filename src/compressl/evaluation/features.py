"""Features of images, once; every measure works on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressl.devices import autocast
from compressl.errors import DataError
from compressl.randomness import key
from compressl.settings.views import ViewRecipe
from compressl.views import Views, center_boxes, normalize, resized_crop, store_boxes

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


def forward(
    encoder: nn.Module,
    images: Tensor,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    precision: str = "fp32",
) -> Tensor:
    """Features of images given as pixels, [B, 3, S, S] in [0, 1] -> float32 [B, F]; gradients pass."""
    x = normalize(images, mean, std).contiguous(memory_format=torch.channels_last)
    with autocast(images.device, precision):
        out: Tensor = encoder(x)
    return out.float()


@torch.no_grad()
def encode_batches(
    encode: Callable[[Tensor], Tensor],
    batches: Iterable[Tensor],
    advance: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """What ``encode`` makes of batches of images, one after the other, without gradients.

    Args:
        advance: told how many images are done.

    >>> done = []
    >>> encode_batches(lambda x: 2 * x, [torch.ones(2), torch.ones(1)], done.append), done
    (tensor([2., 2., 2.]), [2, 3])
    """
    found: list[Tensor] = []
    for batch in batches:
        found.append(encode(batch))
        advance(sum(map(len, found)))
    return torch.cat(found)


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
) -> Tensor:
    """Features of images, float32 [N, F] on the device, the encoder in evaluation mode.

    Args:
        indices: which images of the packed set, int64 [N].
    """
    was_training = encoder.training
    encoder.eval()
    try:
        views = central_views(packed, indices, size, batch_size, device)
        return encode_batches(lambda view: forward(encoder, view, mean, std, precision), views)
    finally:
        encoder.train(was_training)


def raw_pixels(
    packed: PackedImages, indices: NDArray[np.int64], size: int, device: torch.device, batch_size: int = 512
) -> Tensor:
    """The pixels of the same crop at 16 x 16 or less, less each image's mean: float32 [N, 3 * side * side]."""
    views = central_views(packed, indices, size, batch_size, device, min(size, PIXEL_SIDE))
    return encode_batches(flat, views)


def flat(images: Tensor) -> Tensor:
    """Pixels less each image's mean, [B, 3, S, S] -> [B, 3 S S]."""
    pixels = images.flatten(1)
    return pixels - pixels.mean(1, keepdim=True)


def random_views(
    packed: PackedImages,
    indices: NDArray[np.int64],
    copies: int,
    recipes: tuple[ViewRecipe, ...],
    seed: int,
    batch_size: int,
    device: torch.device,
) -> Iterator[Tensor]:
    """Random views of each image by the recipes in turn, batch by batch: float32 [b, copies, 3, S, S] in [0, 1].

    A view is a function of the seed, the image and the number of the copy.
    """
    views = Views(recipes, key("evaluation", seed))
    at_once = max(1, batch_size // copies)
    for start in range(0, len(indices), at_once):
        chosen = indices[start : start + at_once]
        stored, geometry = (torch.from_numpy(x) for x in packed.gather(chosen))
        batch, numbers = stored.to(device), torch.from_numpy(chosen)
        drawn: list[Tensor] = []
        for epoch in range(-(-copies // len(recipes))):
            drawn += views(batch, geometry, numbers, epoch, normalized=False)
        yield torch.stack(drawn[:copies], 1)


def finite(features: Tensor, name: str) -> Tensor:
    """The features, if they can be measured.

    Raises:
        DataError: they cannot.
    """
    if not bool(torch.isfinite(features).all()):
        raise DataError(f"The {name} gives features that are not finite.", "The training diverged; pretrain again.")
    return features

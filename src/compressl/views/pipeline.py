"""From a stored batch and a draw to the view: no randomness here."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from compressl.devices import sent
from compressl.settings.views import ViewRecipe
from compressl.views.blur import gaussian_blur
from compressl.views.color import grayscale, jitter_group, jitter_sorted_, solarize, standardize
from compressl.views.fused import Fused, pack
from compressl.views.parameters import ViewParameters
from compressl.views.resample import check_images, resized_crop, store_boxes
from compressl.views.single import augment_each
from compressl.views.threads import in_parts

_CPU_PART = 1 << 20
"""Float values augmented at a time on a CPU: they should stay in its cache from one operator to the next."""
_LARGE = 128
"""Views of more pixels across are augmented one at a time on a CPU: their operators outlast the calls."""


@torch.no_grad()
def apply(
    images: Tensor,
    geometry: Tensor,
    parameters: ViewParameters,
    recipe: ViewRecipe,
    normalized: bool = True,
    memory_format: torch.memory_format = torch.contiguous_format,
    fused: Fused | None = None,
) -> Tensor:
    """The view that ``parameters`` describe, float32 [N, 3, size, size].

    Crop and flip, color jitter, greyscale, blur, solarisation, normalisation, in this order (Chen et al. 2020,
    appendix A; Grill et al. 2020, appendix B). Autocast has no say here. On a CPU a view is the same to the bit in any
    batch and on any number of threads.

    Args:
        images: uint8 [N, H, W, 3], on the device that does the work. An image of another size or shape than H x W was
            resized to it, each axis on its own.
        geometry: integer [N, 2], height and width of the original images, in whose pixels the boxes are.
        parameters: of :func:`compressl.views.draw`, with the same recipe.
        recipe: gives the size, the mean and the standard deviation.
        normalized: False leaves the values in [0, 1].
        memory_format: ``torch.channels_last`` spares a network that wants it a pass over the views.
        fused: the operators as a compiled function, for a device other than a CPU.

    Raises:
        ValueError: ``images`` is not uint8 [N, H, W, 3], or ``parameters`` or ``geometry`` is for another number.
    """
    n, device, size = len(images), images.device, recipe.size
    if len(parameters) != n or geometry.shape != (n, 2):
        raise ValueError(f"{n} images need {n} parameters and geometries; got {len(parameters)}, {len(geometry)}.")
    check_images(images)
    boxes = store_boxes(parameters.boxes, geometry.cpu(), (images.shape[1], images.shape[2]))
    on_cpu = device.type == "cpu"
    if on_cpu:
        _keep_freed_memory()
    elif fused is not None and n > 0:
        with torch.autocast(device.type, enabled=False):
            return fused(images, sent(pack(parameters, boxes), device), recipe, normalized, memory_format)
    out = torch.empty(n, 3, size, size, device=device, memory_format=memory_format)
    augment = augment_each if on_cpu and size > _LARGE else _augment

    def work(part: slice) -> None:
        augment(images[part], boxes[part], parameters[part], recipe, normalized, out[part])

    if on_cpu:
        in_parts(work, n, max(1, _CPU_PART // (3 * max(size**2, images.shape[1] * images.shape[2]))))
    else:
        with torch.autocast(device.type, enabled=False):
            work(slice(0, n))
    return out


@functools.cache
def _keep_freed_memory() -> None:
    """Ask glibc, in its own way, to keep the memory of operators' results from one operator to the next.

    It returns freed blocks above a threshold to the system, and the next operator pays for every page anew: half the
    time of small views. The threshold follows the largest block freed so far, up to 32 MiB (mallopt(3),
    M_MMAP_THRESHOLD): free one, of which no page was ever touched. Elsewhere this does nothing. A training keeps more
    (:func:`compressl.devices.keep_freed_memory`).
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def _augment(
    images: Tensor, boxes: Tensor, parameters: ViewParameters, recipe: ViewRecipe, normalized: bool, out: Tensor
) -> None:
    # Images that want the same work side by side: color jitter then takes slices and moves nothing.
    group, rows = jitter_group(parameters.factors, parameters.order).sort(stable=True)
    parameters = parameters[rows]
    x = resized_crop(images.index_select(0, sent(rows, images.device)), boxes[rows], recipe.size, parameters.flip)
    jitter_sorted_(x, group, parameters.factors, parameters.order)
    if len(gray := parameters.grayscale.nonzero()[:, 0]):
        there = sent(gray, x.device)
        x.index_copy_(0, there, grayscale(x.index_select(0, there)))
    blurred = parameters.sigma.nonzero()[:, 0]
    if len(blurred) == len(x):
        x = gaussian_blur(x, parameters.sigma)
    elif len(blurred):
        there = sent(blurred, x.device)
        x.index_copy_(0, there, gaussian_blur(x.index_select(0, there), parameters.sigma[blurred]))
    if len(inverted := parameters.solarize.nonzero()[:, 0]):
        there = sent(inverted, x.device)
        x.index_copy_(0, there, solarize(x.index_select(0, there)))
    laid_out = torch.empty_like(out)
    if normalized:
        standardize(x, recipe.mean, recipe.std, out=laid_out)
    else:
        laid_out.copy_(x)
    torch.index_select(laid_out, 0, sent(rows.argsort(), x.device), out=out)  # whole images: faster than index_copy_


def normalize(images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Tensor:
    """``(images - mean) / std`` for each channel of [N, 3, H, W].

    >>> normalize(torch.full((1, 3, 1, 1), 0.5), (0.5, 0.25, 0.0), (0.5, 0.5, 0.5)).flatten().tolist()
    [0.0, 0.5, 1.0]
    """
    center, spread = (sent(torch.tensor(values), images.device).view(3, 1, 1) for values in (mean, std))
    return (images - center).div_(spread)


def denormalize(images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Tensor:
    """The inverse of :func:`normalize`, clamped to [0, 1]: a view as a picture.

    >>> view = torch.tensor([0.0, 0.5, 9.0]).view(1, 3, 1, 1)
    >>> denormalize(view, (0.5, 0.25, 0.0), (0.5, 0.5, 0.5)).flatten().tolist()
    [0.5, 0.5, 1.0]
    """
    center, spread = (sent(torch.tensor(values), images.device).view(3, 1, 1) for values in (mean, std))
    return (images * spread).add_(center).clamp_(0, 1)

"""From a stored batch and a draw to the view: no randomness here."""

from __future__ import annotations

import torch
from torch import Tensor

from compressl.settings.views import ViewRecipe
from compressl.views.blur import gaussian_blur
from compressl.views.color import color_jitter, grayscale, jitter_group, solarize
from compressl.views.parameters import ViewParameters
from compressl.views.resample import resized_crop, store_boxes

_CPU_CHUNK = 1 << 20
"""Float values augmented at a time on a CPU: they should stay in its cache from one operator to the next."""


@torch.no_grad()
def apply(
    images: Tensor, geometry: Tensor, parameters: ViewParameters, recipe: ViewRecipe, normalized: bool = True
) -> Tensor:
    """The view that ``parameters`` describe, float32 [N, 3, size, size].

    Crop and flip, color jitter, greyscale, blur, solarisation, normalisation, in this order (Chen et al. 2020,
    appendix A; Grill et al. 2020, appendix B). Autocast has no say here.

    Args:
        images: uint8 [N, H, W, 3], on the device that does the work. An image of another size or shape than H x W was
            resized to it, each axis on its own.
        geometry: integer [N, 2], height and width of the original images, in whose pixels the boxes are.
        parameters: of :func:`compressl.views.draw`, with the same recipe.
        recipe: gives the size, the mean and the standard deviation.
        normalized: False leaves the values in [0, 1].

    Raises:
        ValueError: ``images`` is not uint8 [N, H, W, 3], or ``parameters`` or ``geometry`` is for another number.
    """
    n, device = len(images), images.device
    if len(parameters) != n or geometry.shape != (n, 2):
        raise ValueError(f"{n} images need {n} parameters and geometries; got {len(parameters)}, {len(geometry)}.")
    out = torch.empty(n, 3, recipe.size, recipe.size, device=device)
    # Images that want the same work side by side: color_jitter then takes slices and moves nothing.
    rows = jitter_group(parameters.factors, parameters.order).argsort(stable=True)
    parameters, geometry = parameters[rows], geometry.cpu()[rows]
    boxes = store_boxes(parameters.boxes, geometry, (images.shape[1], images.shape[2]))
    chunk = max(1, n)
    if device.type == "cpu":
        chunk = max(1, _CPU_CHUNK // (3 * max(recipe.size**2, images.shape[1] * images.shape[2])))
    with torch.autocast(device.type, enabled=False):
        for first in range(0, n, chunk):
            part = slice(first, first + chunk)
            there = rows[part].to(device)
            view = _augment(images.index_select(0, there), boxes[part], parameters[part], recipe.size)
            if normalized:
                normalize(view, recipe.mean, recipe.std, inplace=True)
            out.index_copy_(0, there, view)
    return out


def _augment(images: Tensor, boxes: Tensor, parameters: ViewParameters, size: int) -> Tensor:
    x = resized_crop(images, boxes, size, parameters.flip)
    color_jitter(x, parameters.factors, parameters.order, inplace=True)
    if len(gray := parameters.grayscale.nonzero()[:, 0]):
        there = gray.to(x.device)
        x.index_copy_(0, there, grayscale(x.index_select(0, there)))
    blurred = parameters.sigma.nonzero()[:, 0]
    if len(blurred) == len(x):
        x = gaussian_blur(x, parameters.sigma)
    elif len(blurred):
        there = blurred.to(x.device)
        x.index_copy_(0, there, gaussian_blur(x.index_select(0, there), parameters.sigma[blurred]))
    if len(inverted := parameters.solarize.nonzero()[:, 0]):
        there = inverted.to(x.device)
        x.index_copy_(0, there, solarize(x.index_select(0, there)))
    return x


def normalize(
    images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float], inplace: bool = False
) -> Tensor:
    """``(images - mean) / std`` for each channel of [N, 3, H, W].

    >>> normalize(torch.full((1, 3, 1, 1), 0.5), (0.5, 0.25, 0.0), (0.5, 0.5, 0.5)).flatten().tolist()
    [0.0, 0.5, 1.0]
    """
    center, spread = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (mean, std))
    return (images if inplace else images.clone()).sub_(center).div_(spread)


def denormalize(images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Tensor:
    """The inverse of :func:`normalize`, clamped to [0, 1]: a view as a picture.

    >>> view = torch.tensor([0.0, 0.5, 9.0]).view(1, 3, 1, 1)
    >>> denormalize(view, (0.5, 0.25, 0.0), (0.5, 0.5, 0.5)).flatten().tolist()
    [0.5, 0.5, 1.0]
    """
    center, spread = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (mean, std))
    return (images * spread).add_(center).clamp_(0, 1)

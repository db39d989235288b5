"""All operators of a view as one function of fixed shapes, for a compiler to make few kernels of.

Every image passes through every operator, and what it did not draw changes nothing; each of the four places in the
order of color jitter is one pass over the pixels. No shape depends on a value, so nothing waits for a device. That is
more arithmetic than :mod:`compressl.views.color` does and far less memory traffic: right for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from compressl.errors import first_line
from compressl.settings.views import ViewRecipe
from compressl.views.blur import gaussian_blur
from compressl.views.color import BRIGHTNESS, CONTRAST, HUE, IDENTITY, ORDERS, SATURATION, luma
from compressl.views.parameters import ViewParameters
from compressl.views.resample import resized_crop

_ORDERS = torch.tensor(ORDERS)
_NO_BLUR = 1e-3
"""A standard deviation in pixels whose kernel is 1 in the middle and exactly 0 elsewhere."""


def pack(parameters: ViewParameters, boxes: Tensor) -> Tensor:
    """All numbers of N views as one float32 [N, 16], to travel to a device at once.

    Columns: the box in pixels of the stored image (4), mirrored, the operators of color jitter in their order (4),
    their factors (4), grey, the blur's standard deviation, solarised.
    """
    operators = _ORDERS[parameters.order]
    factors = parameters.factors.gather(1, operators)
    idle = factors == torch.tensor(IDENTITY)[operators]
    operators = operators.masked_fill(idle, BRIGHTNESS)  # by 1: exactly nothing, unlike a hue turned there and back
    factors = factors.masked_fill(idle, 1.0)
    sigma = parameters.sigma.clamp_min(_NO_BLUR)
    rest = [boxes, parameters.flip[:, None], operators, factors]
    return torch.cat([*rest, parameters.grayscale[:, None], sigma[:, None], parameters.solarize[:, None]], 1).float()


def augment(
    images: Tensor, numbers: Tensor, recipe: ViewRecipe, normalized: bool, memory_format: torch.memory_format
) -> Tensor:
    """The views of uint8 [N, H, W, 3] by :func:`pack`, on their device: float32 [N, 3, size, size]."""
    boxes, flip, operators, factors, gray, sigma, inverted = torch.split(numbers, [4, 1, 4, 4, 1, 1, 1], 1)
    x = resized_crop(images, boxes, recipe.size, flip[:, 0] > 0)
    if recipe.jitter:
        for operator, factor in zip(operators.unbind(1), factors.unbind(1), strict=True):
            x = _jitter(x, operator.view(-1, 1, 1, 1), factor.view(-1, 1, 1, 1))
    if recipe.grayscale:
        x = torch.where(gray.view(-1, 1, 1, 1) > 0, luma(x), x)
    if recipe.blur:
        x = gaussian_blur(x, sigma[:, 0])
    if recipe.solarize:
        x = torch.where(inverted.view(-1, 1, 1, 1) > 0, torch.minimum(x, 1 - x), x)
    if normalized:
        # By plain numbers: a tensor of them would travel to the device each time.
        channels = zip(x.unbind(1), recipe.mean, recipe.std, strict=True)
        x = torch.stack([(channel - mean) / std for channel, mean, std in channels], 1)
    return x.contiguous(memory_format=memory_format)


def _jitter(x: Tensor, operator: Tensor, factor: Tensor) -> Tensor:
    """One operator for each image; the mean for contrast is the only thing that is not pixel by pixel."""
    gray = luma(x)
    base = torch.where(operator == SATURATION, gray, 0.0)
    base = torch.where(operator == CONTRAST, gray.mean((1, 2, 3), keepdim=True), base)
    blended = factor * x + (1 - factor) * base
    return torch.where(operator == HUE, _turned(x, factor), blended).clamp(0, 1)


def _turned(x: Tensor, shift: Tensor) -> Tensor:
    """:func:`compressl.views.color.adjust_hue` where nothing is in place; its formulas are explained there."""
    red, green, blue = torch.split(x, 1, 1)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = high - low
    hue = (green + blue - red + high - 2 * low) / chroma.clamp_min(1e-12)
    hue = torch.copysign(hue, green - blue) + 6 * shift
    hue = hue - 6 * torch.floor(hue * (1 / 6))
    rising, falling = low - chroma, high + chroma
    channels = (
        rising + chroma * (hue - 3).abs().clamp(1, 2),
        falling - chroma * (hue - 2).abs().clamp(1, 2),
        falling - chroma * (hue - 4).abs().clamp(1, 2),
    )
    return torch.cat(channels, 1)


class Fused:
    """:func:`augment`, compiled when it is first called, and again for another recipe or number of images.

    If the compiler fails at first, ``problem`` says why, and the function runs as it is written.

    >>> Fused().problem is None
    True
    """

    def __init__(self) -> None:
        self.problem: str | None = None
        self._run: Callable[..., Tensor] = torch.compile(augment, dynamic=False)
        self._proven: set[ViewRecipe] = set()

    def __call__(
        self,
        images: Tensor,
        numbers: Tensor,
        recipe: ViewRecipe,
        normalized: bool = True,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> Tensor:
        """As :func:`augment`."""
        try:
            out = self._run(images, numbers, recipe, normalized, memory_format)
        except Exception as error:  # a compiler has many ways to fail: there is none, it lacks a header, it has a bug
            if recipe in self._proven or isinstance(error, torch.OutOfMemoryError):
                raise
            self.problem = first_line(error)
            self._run = augment
            out = augment(images, numbers, recipe, normalized, memory_format)
        self._proven.add(recipe)
        return out

"""All operators of a view as one function of fixed shapes, for a compiler to make few kernels of.

Every image passes through every operator, and what it did not draw changes nothing; each of the four places in the
order of color jitter is one pass over the pixels. No shape depends on a value, so nothing waits for a device. That is
more arithmetic than :mod:`compressl.views.color` does and far less memory traffic: right for a GPU.

The colours are planes of their own until the end: what joins them would be a pass over memory. The blur adds its taps
one by one, which is arithmetic too, where :mod:`compressl.views.blur` multiplies by bands.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from compressl.errors import first_line
from compressl.settings.views import ViewRecipe
from compressl.views.blur import gaussian_kernel
from compressl.views.color import BRIGHTNESS, CONTRAST, HUE, IDENTITY, LUMA, ORDERS, SATURATION
from compressl.views.parameters import ViewParameters
from compressl.views.resample import resized_crop

Planes = tuple[Tensor, ...]  # red, green and blue, [N, size, size] each

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
    planes = resized_crop(images, boxes, recipe.size, flip[:, 0] > 0).unbind(1)
    if recipe.jitter:
        for operator, factor in zip(operators.unbind(1), factors.unbind(1), strict=True):
            planes = _jitter(planes, operator.view(-1, 1, 1), factor.view(-1, 1, 1))
    if recipe.grayscale:
        one = _luma(planes)
        planes = tuple(torch.where(gray.view(-1, 1, 1) > 0, one, plane) for plane in planes)
    if recipe.blur:
        planes = _blurred(torch.stack(planes, 1), gaussian_kernel(sigma[:, 0], recipe.size)).unbind(1)
    if recipe.solarize:
        planes = tuple(torch.where(inverted.view(-1, 1, 1) > 0, torch.minimum(p, 1 - p), p) for p in planes)
    if normalized:
        # By plain numbers: a tensor of them would travel to the device each time.
        planes = tuple((plane - m) / s for plane, m, s in zip(planes, recipe.mean, recipe.std, strict=True))
    return torch.stack(planes, -1).permute(0, 3, 1, 2).contiguous(memory_format=memory_format)


def _luma(planes: Planes) -> Tensor:
    red, green, blue = (share * plane for share, plane in zip(LUMA, planes, strict=True))
    return red + green + blue


def _jitter(planes: Planes, operator: Tensor, factor: Tensor) -> Planes:
    """One operator for each image; the mean for contrast is the only thing that is not pixel by pixel."""
    gray = _luma(planes)
    base = torch.where(operator == SATURATION, gray, 0.0)
    base = torch.where(operator == CONTRAST, gray.mean((1, 2), keepdim=True), base)
    return tuple(
        torch.where(operator == HUE, turned, factor * plane + (1 - factor) * base).clamp(0, 1)
        for plane, turned in zip(planes, _turned(planes, factor), strict=True)
    )


def _turned(planes: Planes, shift: Tensor) -> Planes:
    """:func:`compressl.views.color.adjust_hue` where nothing is in place; its formulas are explained there."""
    red, green, blue = planes
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = high - low
    angle = torch.copysign(green + blue - red + high - 2 * low, green - blue) + 6 * shift * chroma
    angle = angle - torch.copysign(3 * chroma, angle)
    rising, falling = low - chroma, high + chroma
    ramps = (rising + angle.abs(), falling - (angle + chroma).abs(), falling - (angle - chroma).abs())
    return tuple(torch.minimum(torch.maximum(ramp, low), high) for ramp in ramps)


def _blurred(x: Tensor, kernel: Tensor) -> Tensor:
    """[N, 3, size, size] along both axes by the taps [N, taps] of each image, added one after the other."""
    radius = kernel.shape[1] // 2
    taps = kernel[:, :, None, None, None].unbind(1)
    for axis, border in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        size, wide = x.shape[axis], torch.nn.functional.pad(x, border, mode="reflect")
        x = taps[0] * wide.narrow(axis, 0, size)
        for first, tap in enumerate(taps[1:], start=1):
            x = x + tap * wide.narrow(axis, first, size)
    return x


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

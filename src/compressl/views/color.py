"""Color operators on batches, a factor of its own for each image.

Images are float [N, 3, H, W] in [0, 1] and stay there. The operators are those that torchvision defines for float
images; every one returns a new tensor unless told ``inplace``.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

from compressl.devices import sent

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # columns of `factors`, as torchvision counts them
ORDERS = tuple(permutations(range(4)))
"""The 24 orders of the four operators; ``order`` indexes it."""
IDENTITY = (1.0, 1.0, 1.0, 0.0)
"""Factors that change nothing."""
LUMA = (0.2989, 0.587, 0.114)
"""Shares of red, green and blue in a grey value."""

_BLENDS = torch.tensor([[operator for operator in order if operator != HUE] for order in ORDERS])
_BLENDS_BEFORE_HUE = torch.tensor([order.index(HUE) for order in ORDERS])
_NO_HUE, _NOTHING = 4, 5


def luma(images: Tensor) -> Tensor:
    """Grey values 0.2989 R + 0.587 G + 0.114 B, [N, 1, H, W].

    >>> luma(torch.ones(1, 3, 1, 1)).item()
    0.9999000430107117
    """
    red, green, blue = LUMA
    gray = images[:, 0:1] * red
    return gray.add_(images[:, 1:2], alpha=green).add_(images[:, 2:3], alpha=blue)


def grayscale(images: Tensor) -> Tensor:
    """Every channel the grey value, [N, 3, H, W] (torchvision's ``rgb_to_grayscale`` with three channels)."""
    return luma(images).expand_as(images).contiguous()


def solarize(images: Tensor) -> Tensor:
    """Values at or above one half inverted (Grill et al. 2020, appendix B).

    >>> solarize(torch.tensor([0.25, 0.5, 1.0])).tolist()
    [0.25, 0.5, 0.0]
    """
    return torch.minimum(images, 1 - images)


def standardize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...], out: Tensor) -> None:
    """``(images - mean) / std`` of [N, 3, H, W] into ``out``, in its memory format: one pass, without a gradient."""
    shift = sent(torch.tensor([-center / spread for center, spread in zip(mean, std, strict=True)]), images.device)
    for channel, spread in enumerate(std):
        torch.add(shift[channel], images[:, channel], alpha=1 / spread, out=out[:, channel])


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """``factor * x``, clamped; ``factor`` [N], at least 0."""
    nothing = torch.zeros_like(factor)
    return _blend_(images.clone(), factor, of_mean=nothing, of_gray=nothing)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean grey value of the image, clamped; ``factor`` [N], at least 0, and 1 changes nothing."""
    return _blend_(images.clone(), factor, of_mean=1 - factor, of_gray=torch.zeros_like(factor))


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image, clamped; ``factor`` [N], at least 0, and 1 changes nothing."""
    return _blend_(images.clone(), factor, of_mean=torch.zeros_like(factor), of_gray=1 - factor)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of HSV by ``shift`` [N] in [-0.5, 0.5] of a full turn.

    >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    >>> adjust_hue(red, torch.tensor([1 / 3])).flatten().round().tolist()
    [0.0, 1.0, 0.0]
    """
    return adjust_hue_(images.clone(), shift)


def color_jitter(images: Tensor, factors: Tensor, order: Tensor, inplace: bool = False) -> Tensor:
    """Brightness, contrast, saturation and hue, in an order of its own for each image (Chen et al. 2020, appendix A).

    An image whose factors are all :data:`IDENTITY` is left alone. Fastest when images come in order of their
    :func:`jitter_group`; ``factors`` and ``order`` on the CPU spare a GPU all waiting.

    Args:
        images: float32 [N, 3, H, W] in [0, 1].
        factors: float32 [N, 4], of brightness, contrast and saturation (at least 0) and the hue's shift in [-0.5, 0.5].
        order: int64 [N], index of :data:`ORDERS`.
        inplace: overwrite ``images``.

    >>> images = torch.full((1, 3, 2, 2), 0.4)
    >>> color_jitter(images, torch.tensor([[2.0, 1.0, 1.0, 0.0]]), torch.tensor([0]))[0, 0, 0, 0].item()
    0.800000011920929
    """
    group = jitter_group(factors, order).cpu()
    if bool((group[1:] < group[:-1]).any()):
        rows = group.argsort(stable=True)
        there = sent(rows, images.device)
        mixed = jitter_sorted_(images.index_select(0, there), group[rows], factors[rows], order[rows])
        return (images if inplace else torch.empty_like(images)).index_copy_(0, there, mixed)
    return jitter_sorted_(images if inplace else images.clone(), group, factors, order)


def jitter_group(factors: Tensor, order: Tensor) -> Tensor:
    """Images of one group need the same work, int64 [N]: 0 to 3 blends come before the hue; 4: no hue; 5: nothing."""
    blends_before_hue = _BLENDS_BEFORE_HUE.to(order.device)[order]
    group = torch.where(factors[:, HUE] == 0, _NO_HUE, blends_before_hue)
    return torch.where((factors == factors.new_tensor(IDENTITY)).all(1), _NOTHING, group)


def jitter_sorted_(x: Tensor, group: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """:func:`color_jitter` in place, of images in order of their ``group``.

    Brightness, contrast and saturation are blends that one pass can do for images that want different ones; hue
    comes in between, for the run of images whose turn it is. So no image is moved, and none waits for all 24 orders.
    """
    counts = group.bincount(minlength=_NOTHING + 1).tolist()
    active = sum(counts[:_NOTHING])
    if active == 0:
        return x
    factors = factors[:active]
    blends = _BLENDS.to(order.device)[order[:active]].T  # [3, active]
    factor = factors.T.gather(0, blends)
    of_mean, of_gray = (torch.where(blends == operator, 1 - factor, 0.0) for operator in (CONTRAST, SATURATION))
    shares = sent(torch.stack([factor, of_mean, of_gray], 1), x.device)  # [3, 3, active]
    shift = sent(factors[:, HUE], x.device)
    first = 0
    for step in range(4):
        last = first + counts[step]
        if last > first:
            adjust_hue_(x[first:last], shift[first:last])
        if step < 3:
            _blend_(x[:active], *shares[step])
        first = last
    return x


def _blend_(x: Tensor, factor: Tensor, of_mean: Tensor, of_gray: Tensor) -> Tensor:
    """``clamp(factor * x + of_mean * mean grey value + of_gray * grey image)``, in place; shares are [N]."""
    factor, of_mean, of_gray = (share.view(-1, 1, 1, 1) for share in (factor, of_mean, of_gray))
    gray = luma(x)
    of_mean = of_mean * gray.mean((1, 2, 3), keepdim=True)
    return torch.addcmul(gray.mul_(of_gray).add_(of_mean), x, factor, out=x).clamp_(0, 1)


def adjust_hue_(x: Tensor, shift: Tensor) -> Tensor:
    """:func:`adjust_hue` in place, with value and chroma kept, without a case for each channel that can be the largest.

    In sextants from red, the hue is G + B - R + max - 2 min over chroma, with the sign of G - B. All is times chroma
    here, so nothing is divided. The hue is turned by the shift and by half a circle toward red, so that ``angle`` is
    within 3 chroma of cyan; a channel is a ramp that is cut off at min and max: min - chroma + |angle| for red,
    max + chroma - |angle - c| for green (c = -chroma) and blue (c = chroma).
    """
    red, green, blue = x.unbind(1)  # [n, H, W] each
    high, low = x.amax(1), x.amin(1)
    chroma = high - low
    angle = (green + blue).sub_(red).add_(high).sub_(low, alpha=2)  # exactly 0 for grey
    ramp = green - blue
    angle.copysign_(ramp).addcmul_(chroma, sent(shift * 6, x.device).view(-1, 1, 1))
    angle.sub_(torch.copysign(chroma, angle, out=ramp), alpha=3)
    torch.clamp(torch.abs(angle, out=ramp).add_(low).sub_(chroma), low, high, out=red)
    falling = high + chroma
    torch.add(angle, chroma, out=ramp).abs_()
    torch.clamp(torch.sub(falling, ramp, out=ramp), low, high, out=green)
    torch.clamp(torch.sub(falling, angle.sub_(chroma).abs_(), out=ramp), low, high, out=blue)
    return x

"""The random draw of a view: every number that augments an image, as a pure function of a key and the image's index."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from compressl.randomness import uniforms
from compressl.settings.views import ViewRecipe
from compressl.views.color import IDENTITY, ORDERS
from compressl.views.threads import one_thread

_ATTEMPTS = 10  # torchvision's, before a crop falls back on the centre
# Lanes of the uniforms. They are part of what a seed means: add new ones at the end, never renumber.
_FLIP, _JITTER, _BRIGHTNESS, _CONTRAST, _SATURATION, _HUE, _ORDER, _GRAYSCALE, _BLUR, _SIGMA, _SOLARIZE = range(11)
_TOP, _LEFT = 11, 12
_AREA = slice(13, 13 + _ATTEMPTS)
_RATIO = slice(13 + _ATTEMPTS, 13 + 2 * _ATTEMPTS)
_LANES = 13 + 2 * _ATTEMPTS


@dataclass(frozen=True)
class ViewParameters:
    """What augments each of N images, on the CPU."""

    boxes: Tensor
    """int64 [N, 4]: the crop's top, left, height and width, in pixels of the original image."""
    flip: Tensor
    """bool [N]: mirrored left to right, after the crop."""
    factors: Tensor
    """float32 [N, 4]: factors of brightness, contrast, saturation, and the shift of hue in turns. 1, 1, 1, 0: none."""
    order: Tensor
    """int64 [N]: order of these four, an index of :data:`compressl.views.color.ORDERS`."""
    grayscale: Tensor
    """bool [N]."""
    sigma: Tensor
    """float32 [N]: standard deviation of the blur in pixels of the view. 0: none."""
    solarize: Tensor
    """bool [N]."""

    def __len__(self) -> int:
        return len(self.flip)

    def __getitem__(self, rows: Tensor | slice) -> ViewParameters:
        """Those of some of the images."""
        return ViewParameters(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@one_thread()
def draw(recipe: ViewRecipe, geometry: Tensor, indices: Tensor, stream_key: int) -> ViewParameters:
    """One draw per image. A row depends on its index, its geometry, the key and the recipe: not on the batch.

    Distributions are those of torchvision's ``RandomResizedCrop`` (ten attempts, then the largest central crop of an
    allowed ratio), ``RandomApply(ColorJitter)`` and ``GaussianBlur``. Always computed on the CPU, in float64 where a
    rounding decides, so it is the same for every device; indices that are there already spare a GPU all waiting.

    Args:
        recipe: probabilities and ranges.
        geometry: integer [N, 2], height and width of the original images.
        indices: integer [N], of the images in their data set.
        stream_key: a :func:`compressl.randomness.key`.

    Raises:
        ValueError: a shape other than these, or an image without pixels.

    >>> from compressl.randomness import key
    >>> parameters = draw(ViewRecipe(), torch.tensor([[32, 32]]), torch.tensor([7]), key("view", 0, 0, 0))
    >>> parameters.boxes.shape, parameters.factors.shape
    (torch.Size([1, 4]), torch.Size([1, 4]))
    """
    geometry, indices = geometry.cpu(), indices.cpu()
    if indices.ndim != 1 or geometry.shape != (len(indices), 2):
        raise ValueError(f"geometry must be [N, 2] and indices [N]; they are {[*geometry.shape]}, {[*indices.shape]}.")
    if bool((geometry < 1).any()):
        raise ValueError("geometry holds a height or width below 1; an image has at least one pixel.")
    u = uniforms(stream_key, indices, _LANES)

    spans = []
    for factor in (recipe.brightness, recipe.contrast, recipe.saturation):
        spans.append((max(0.0, 1 - factor), 1 + factor))
    spans.append((-recipe.hue, recipe.hue))
    low, high = torch.tensor(spans).T
    factors = low + (high - low) * u[:, _BRIGHTNESS : _HUE + 1]
    sigma = recipe.blur_min_sigma + (recipe.blur_max_sigma - recipe.blur_min_sigma) * u[:, _SIGMA]
    return ViewParameters(
        boxes=_boxes(recipe, geometry, u),
        flip=u[:, _FLIP] < recipe.flip,
        factors=torch.where(u[:, _JITTER, None] < recipe.jitter, factors, torch.tensor(IDENTITY)),
        order=(u[:, _ORDER] * len(ORDERS)).to(torch.int64),
        grayscale=u[:, _GRAYSCALE] < recipe.grayscale,
        sigma=torch.where(u[:, _BLUR] < recipe.blur, sigma, 0.0),
        solarize=u[:, _SOLARIZE] < recipe.solarize,
    )


def _boxes(recipe: ViewRecipe, geometry: Tensor, u: Tensor) -> Tensor:
    u = u.to(torch.float64)
    height, width = geometry.to(torch.float64)[:, :, None].unbind(1)  # [N, 1] each
    share = recipe.min_scale + (recipe.max_scale - recipe.min_scale) * u[:, _AREA]
    low, high = math.log(recipe.min_ratio), math.log(recipe.max_ratio)
    ratio = (low + (high - low) * u[:, _RATIO]).exp_()
    area = height * width * share
    across, down = (area * ratio).sqrt_().round_(), (area / ratio).sqrt_().round_()  # [N, attempts]
    fits = (across >= 1) & (across <= width) & (down >= 1) & (down <= height)

    # The fallback, in the place of an attempt that always fits: the whole image, cut to the nearest allowed ratio.
    most_across = torch.minimum(width, (height * recipe.max_ratio).round_()).clamp_min_(1)
    most_down = torch.minimum(height, (width / recipe.min_ratio).round_()).clamp_min_(1)
    chosen = torch.cat([fits, torch.ones_like(fits[:, :1])], 1).to(torch.uint8).argmax(1, keepdim=True)  # the first
    w = torch.cat([across, most_across], 1).gather(1, chosen)
    h = torch.cat([down, most_down], 1).gather(1, chosen)
    top = (u[:, _TOP, None] * (height - h + 1)).floor_()
    left = (u[:, _LEFT, None] * (width - w + 1)).floor_()
    central = chosen == _ATTEMPTS
    top = torch.where(central, ((height - h) / 2).floor_(), top)
    left = torch.where(central, ((width - w) / 2).floor_(), left)
    return torch.cat([top, left, h, w], 1).to(torch.int64)

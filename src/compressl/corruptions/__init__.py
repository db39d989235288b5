"""Common corruptions of images, batched (Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations"): 15 kinds and 4 extra ones, 5 severities each.

Definitions and numbers are those of the published CIFAR-10-C (images up to 64 pixels) and ImageNet-C (larger ones).
Random numbers are a function of (seed, kind, severity, key of the image) alone, so an image is corrupted alike alone,
in any batch, on any device up to the rounding of a level. Frost is drawn, not photographed: that kind is ours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compressl.corruptions import blur, digital, noise, weather
from compressl.corruptions.kind import Draws
from compressl.errors import UsageError

__all__ = ["CATEGORIES", "EXTRA", "KINDS", "SEVERITIES", "corrupt"]

CATEGORIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
KINDS = tuple(kind for kinds in CATEGORIES.values() for kind in kinds)
"""The 15 kinds of the benchmark."""
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""The 4 kinds that the benchmark keeps for choosing models; no mean contains them."""
SEVERITIES = (1, 2, 3, 4, 5)
SMALL = 64  # images up to this side have the numbers of CIFAR-10-C

_TABLE = {**noise.TABLE, **blur.TABLE, **weather.TABLE, **digital.TABLE}
_AT_ONCE = {"cpu": 1 << 20}  # values corrupted at a time; elsewhere:
_AT_ONCE_ELSEWHERE = 1 << 24


@torch.no_grad()
def corrupt(images: Tensor, kind: str, severity: int, keys: Tensor, seed: int = 0) -> Tensor:
    """Corrupted images, float32 [B, 3, S, S] in [0, 1], of 256 levels as the published sets are.

    Computed in float64, so that the same levels come out whatever the batch; a device without it (mps) leaves the
    work to the processor. The published sets are cut to whole levels, not rounded, and so are these.

    Args:
        images: float [B, 3, S, S] in [0, 1], rounded to 256 levels first.
        kind: of :data:`KINDS` or :data:`EXTRA`.
        severity: 1 to 5.
        keys: int64 [B], which image each one is: its random numbers depend on it.
        seed: another seed is another draw.

    Raises:
        UsageError: an unknown kind or severity.
        ValueError: images or keys of another shape, values outside of [0, 1] or not finite.

    >>> images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> corrupted = corrupt(images, "fog", 3, torch.tensor([4, 9]))
    >>> torch.equal(corrupted[1:], corrupt(images[1:], "fog", 3, torch.tensor([9])))
    True
    """
    if kind not in _TABLE:
        raise UsageError(f"There is no corruption {kind!r}.", f"Known: {', '.join((*KINDS, *EXTRA))}.")
    if severity not in SEVERITIES:
        raise UsageError(f"Severity {severity} is not known.", "Choose 1, 2, 3, 4 or 5.")
    _check(images, keys)
    device = torch.device("cpu") if images.device.type == "mps" else images.device
    size, operator = images.shape[-1], _TABLE[kind]
    numbers = (operator.small if size <= SMALL else operator.large)[severity - 1]
    at_once = max(1, _AT_ONCE.get(device.type, _AT_ONCE_ELSEWHERE) // (3 * size * size))
    out = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    for start in range(0, len(images), at_once):
        part = slice(start, start + at_once)
        x = (images[part].to(device).double() * 255).round().clamp(0, 255) / 255
        x = operator.apply(x, Draws(kind, severity, keys[part].to(device), seed), numbers)
        out[part] = _cut(x).float()
    return out


def _cut(x: Tensor) -> Tensor:
    """To whole levels from below; what is a whole level but for rounding stays."""
    return (x.clamp(0, 1) * 255 + 1e-9).floor() / 255


def _check(images: Tensor, keys: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or images.shape[2] < 8:
        raise ValueError(f"images must be [B, 3, S, S] with S at least 8; they are {[*images.shape]}.")
    if keys.shape != (len(images),):
        raise ValueError(f"{len(images)} images need as many keys; keys are {[*keys.shape]}.")
    if len(images) and not bool(((images >= -1e-3) & (images <= 1 + 1e-3)).all()):
        raise ValueError("images must be finite and in [0, 1].")

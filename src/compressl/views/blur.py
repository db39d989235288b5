"""Gaussian blur of a batch, a width of its own for each image."""

from __future__ import annotations

import torch
from torch import Tensor

from compressl.devices import sent
from compressl.views.resample import blocks_of, project


def kernel_size(size: int) -> int:
    """Odd number nearest to a tenth of the side of a view (Chen et al. 2020, appendix A): 23 at 224, 9 at 96, 3 at 32.

    >>> [kernel_size(size) for size in (16, 32, 96, 224)]
    [1, 3, 9, 23]
    """
    return 2 * (size // 20) + 1


def gaussian_kernel(sigma: Tensor, size: int) -> Tensor:
    """The taps of each image for views of this size, float32 [N] -> [N, :func:`kernel_size`]; they add up to 1.

    >>> gaussian_kernel(torch.tensor([1.0]), 32).mul(1000).round().tolist()
    [[274.0, 452.0, 274.0]]
    """
    radius = kernel_size(size) // 2
    offsets = torch.arange(-radius, radius + 1, device=sigma.device)
    kernel = (-0.5 * (offsets / sigma.float()[:, None]).square()).exp_()
    # nothing in float32, but subnormal numbers would make the products 20 times slower
    kernel = kernel.masked_fill_(kernel < 1e-15, 0)
    return kernel / kernel.sum(1, keepdim=True)


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Convolve each image with a Gaussian: torchvision's ``gaussian_blur``, kernel and reflected border included.

    Args:
        images: float32 [N, 3, size, size].
        sigma: float [N], standard deviation in pixels, above 0. The kernel has :func:`kernel_size` taps per axis.

    >>> images = torch.zeros(1, 3, 32, 32).index_fill_(3, torch.tensor(16), 1000)
    >>> gaussian_blur(images, torch.tensor([1.0]))[0, 0, 0, 14:19].round().tolist()
    [0.0, 274.0, 452.0, 274.0, 0.0]
    """
    n, size = len(images), images.shape[3]
    radius = kernel_size(size) // 2
    if radius == 0:
        return images.clone()
    device = images.device
    kernel = gaussian_kernel(sent(sigma, device), size)
    kernel = torch.nn.functional.pad(kernel, (0, 1))  # the last entry: 0, for no tap

    # One band matrix serves every block of an image: row o reads the 2 * radius + 1 pixels from o on.
    blocks, block = blocks_of(size)
    tap = torch.arange(block + 2 * radius, device=device) - torch.arange(block, device=device)[:, None]
    tap = torch.where((tap >= 0) & (tap <= 2 * radius), tap, 2 * radius + 1)
    band = kernel.index_select(1, tap.reshape(-1)).view(n, 1, *tap.shape).expand(n, blocks, *tap.shape)
    starts = torch.arange(blocks, device=device) * block - radius
    pixel = (starts[:, None] + torch.arange(block + 2 * radius, device=device)).abs_()  # reflected at 0 ...
    pixel = torch.minimum(pixel, 2 * (size - 1) - pixel).clamp_min_(0)[None]  # ... and at the end
    return project(project(images, pixel, band, size), pixel, band, size)

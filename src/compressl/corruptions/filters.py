"""Linear filters, zooms and fractals on batches [B, C, S, S], with the borders and roundings of the libraries that the
published corrupted sets were made with."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from compressl.corruptions.kind import Draws

Fold = Callable[[Tensor, int], Tensor]


def nearest(index: Tensor, size: int) -> Tensor:
    """Indices beyond the border read the outermost pixel.

    >>> nearest(torch.tensor([-2, 1, 4]), 3).tolist()
    [0, 1, 2]
    """
    return index.clamp(0, size - 1)


def reflect(index: Tensor, size: int) -> Tensor:
    """The border pixel is repeated: c b a | a b c | c b a (scipy's "reflect").

    >>> reflect(torch.tensor([-2, -1, 3, 4]), 3).tolist()
    [1, 0, 2, 1]
    """
    index = index % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


def mirror(index: Tensor, size: int) -> Tensor:
    """The border pixel is not repeated: c b | a b c | b a (OpenCV's default).

    >>> mirror(torch.tensor([-2, -1, 3, 4]), 3).tolist()
    [2, 1, 1, 0]
    """
    period = max(2 * (size - 1), 1)
    index = index % period
    return torch.minimum(index, period - index)


def gaussian_taps(sigma: float, radius: int) -> Tensor:
    """A Gaussian at whole pixels, normalised, float64 [2 radius + 1].

    >>> [round(tap, 4) for tap in gaussian_taps(1.0, 1).tolist()]
    [0.2741, 0.4519, 0.2741]
    """
    offset = torch.arange(-radius, radius + 1, dtype=torch.float64)
    taps = (-0.5 * (offset / sigma).square()).exp()
    return taps / taps.sum()


def band(taps: Tensor, size: int, fold: Fold) -> Tensor:
    """The [S, S] matrix that correlates a row of pixels with ``taps``."""
    radius = len(taps) // 2
    target = torch.arange(size)[:, None].expand(-1, len(taps))
    source = fold(target + torch.arange(-radius, radius + 1), size)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.index_put_((target, source), taps.expand(size, -1), accumulate=True)


def separable(x: Tensor, matrix: Tensor) -> Tensor:
    """The same linear map of rows and of columns: M x M^T."""
    matrix = matrix.to(x)
    return matrix @ x @ matrix.T


def gaussian(x: Tensor, sigma: float, fold: Fold = nearest, truncate: float = 4.0) -> Tensor:
    """Gaussian blur, cut off at ``truncate`` deviations as scipy does. sigma 0 changes nothing."""
    radius = int(truncate * sigma + 0.5)
    return separable(x, band(gaussian_taps(sigma, radius), x.shape[-1], fold)) if radius else x


def correlate(x: Tensor, kernel: Tensor) -> Tensor:
    """Correlation with a square kernel of odd side, mirrored at the border."""
    radius, size = len(kernel) // 2, x.shape[-1]
    around = mirror(torch.arange(-radius, size + radius), size).to(x.device)
    padded = x.index_select(-2, around).index_select(-1, around)
    out = torch.zeros_like(x)
    for row, column in (kernel.abs() > 1e-12).nonzero().tolist():
        out += float(kernel[row, column]) * padded[..., row : row + size, column : column + size]
    return out


def clipped_zoom(size: int, factor: float) -> Tensor:
    """The [S, S] matrix that enlarges the middle of a row by ``factor``, linearly, corners on corners."""
    kept = math.ceil(size / factor)
    enlarged = round(kept * factor)
    position = (torch.arange(size, dtype=torch.float64) + (enlarged - size) // 2) * (kept - 1) / max(enlarged - 1, 1)
    left = position.floor().clamp(max=max(kept - 2, 0)).long()
    share = position - left
    first = (size - kept) // 2
    matrix, row = torch.zeros(size, size, dtype=torch.float64), torch.arange(size)
    matrix[row, first + left] = 1 - share
    matrix[row, (first + left + 1).clamp(max=size - 1)] += share
    return matrix


def motion(x: Tensor, radius: float, sigma: float, degrees: Tensor) -> Tensor:
    """ImageMagick's motion blur: half a Gaussian along a direction of its own for each image, degrees [B].

    Pixel p becomes sum_i k_i x(p + o_i), i = 0 ... 2 radius, k_i proportional to exp(-i^2 / (2 sigma^2)), o_i the
    pixel nearest to i (cos, sin) of the angle; the border pixel is repeated.
    """
    size = x.shape[-1]
    step = torch.arange(2 * math.ceil(radius) + 1, dtype=torch.float64, device=x.device)
    taps = (-0.5 * (step / sigma).square()).exp()
    taps = taps / taps.sum()
    angle = degrees.double().deg2rad()[:, None]
    right, down = ((step * f(angle) - 0.5).ceil().long() for f in (torch.cos, torch.sin))  # [B, taps]
    place = torch.arange(size, device=x.device)
    pixels, out = x.flatten(2), torch.zeros_like(x)
    for i, tap in enumerate(taps.tolist()):
        rows, columns = (nearest(place + offset[:, i, None], size) for offset in (down, right))  # [B, S]
        source = (rows[:, :, None] * size + columns[:, None, :]).view(len(x), 1, -1)
        out += tap * pixels.gather(2, source.expand(-1, x.shape[1], -1)).view_as(x)
    return out


def sample(x: Tensor, rows: Tensor, columns: Tensor, fold: Fold) -> Tensor:
    """Bilinear values of x at real positions, [B, S, S] each."""
    size = x.shape[-1]
    pixels, out = x.flatten(2), torch.zeros_like(x)
    top, left = rows.floor(), columns.floor()
    for down in (0, 1):
        for right in (0, 1):
            weight = (1 - (rows - top - down).abs()) * (1 - (columns - left - right).abs())
            source = fold(top.long() + down, size) * size + fold(left.long() + right, size)
            values = pixels.gather(2, source.view(len(x), 1, -1).expand(-1, x.shape[1], -1))
            out += weight[:, None] * values.view_as(x)
    return out


def plasma(draws: Draws, size: int, decay: float) -> Tensor:
    """A plasma fractal by diamonds and squares on a torus, from 0 to 1, float64 [B, S, S].

    From a grid of step s, midpoints are means of their four neighbours plus w u, u uniform in [-w, w]; then s halves
    and w, first 100, is divided by ``decay``. The side is the next power of two, of which the corner is taken.
    """
    side = 1 << (size - 1).bit_length()
    corner = draws.uniform(1)
    field = corner.new_zeros(len(corner), side, side)
    step, w = side, 100.0
    while step >= 2:
        half, n = step // 2, side // step
        noise = w * w * (2 * draws.uniform(3, n, n) - 1)
        corners = field[:, ::step, ::step].clone()
        centers = _of_four(corners, (0, -1), (0, -1)) + noise[:, 0]
        across = (corners + corners.roll(-1, 2) + centers + centers.roll(1, 1)) / 4 + noise[:, 1]
        along = (corners + corners.roll(-1, 1) + centers + centers.roll(1, 2)) / 4 + noise[:, 2]
        field[:, half::step, half::step] = centers
        field[:, ::step, half::step] = across
        field[:, half::step, ::step] = along
        step, w = half, w / decay
    field = field - field.amin((1, 2), keepdim=True)
    return (field / field.amax((1, 2), keepdim=True))[:, :size, :size]


def _of_four(x: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    return sum(x.roll((row, column), (1, 2)) for row in rows for column in columns) / 4  # type: ignore[return-value]

"""Drops of water or mud on the lens: an extra kind of Hendrycks and Dietterich (2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from compressl.corruptions.filters import correlate, gaussian, nearest
from compressl.corruptions.kind import Draws, Numbers

_WATER, _MUD = (175 / 255, 238 / 255, 238 / 255), (63 / 255, 42 / 255, 20 / 255)
_EMBOSS = torch.tensor([[-2.0, -1, 0], [-1, 1, 1], [0, 1, 2]], dtype=torch.float64)
_MEAN = torch.full((3, 3), 1 / 9, dtype=torch.float64)
_FAR = 20  # distances from an edge are cut off here
_LENGTHS = {(0, 1): 1.0, (1, 1): 1.4, (1, 2): 2.1969}
_STEPS = [
    (row, column, _LENGTHS[kind])
    for row in range(-2, 3)
    for column in range(-2, 3)
    if (kind := (min(abs(row), abs(column)), max(abs(row), abs(column)))) in _LENGTHS
]


def spatter(x: Tensor, draws: Draws, numbers: Numbers) -> Tensor:
    """Blurred normal noise above a threshold is liquid; water shines at its edges, mud covers what is behind."""
    mean, deviation, sigma, threshold, strength, is_mud = numbers
    liquid = gaussian(mean + deviation * draws.normal(1, *x.shape[2:]), sigma)  # [B, 1, S, S]
    if is_mud:
        cover = gaussian((liquid > threshold).double(), strength)
        cover = torch.where(cover < 0.8, 0.0, cover)
        return x * (1 - cover) + cover * x.new_tensor(_MUD).view(3, 1, 1)
    depth = torch.where(liquid < threshold, 0.0, (255 * liquid).floor() % 256)  # bytes overflow in the published sets
    relief = depth * _relief(depth)
    shine = strength * relief / relief.amax((1, 2, 3), keepdim=True).clamp(min=1e-9)
    return x + shine * x.new_tensor(_WATER).view(3, 1, 1)


def _relief(depth: Tensor) -> Tensor:
    """Distances from the edges of the liquid, equalised and embossed, in 0 to 255."""
    distance = distances(edges(depth))
    level = equalize((correlate(distance, _MEAN) + 1e-9).floor())
    embossed = correlate(level, _EMBOSS).clamp(0, 255)
    return (correlate(embossed, _MEAN) + 1e-9).round()


def edges(image: Tensor, low: float = 50, high: float = 150) -> Tensor:
    """Canny's edges (1986) of [B, 1, S, S] with values 0 to 255, as OpenCV finds them: bool.

    Sobel derivatives, the sum of their sizes, only where it is largest across the edge; above ``high``, or above
    ``low`` and connected to such a pixel.
    """
    size = image.shape[-1]
    around = nearest(torch.arange(-1, size + 1), size).to(image.device)
    p = image.index_select(2, around).index_select(3, around)
    ahead, behind = p[..., 2:] - p[..., :-2], p[..., 2:, :] - p[..., :-2, :]
    across = ahead[..., :-2, :] + 2 * ahead[..., 1:-1, :] + ahead[..., 2:, :]
    along = behind[..., :-2] + 2 * behind[..., 1:-1] + behind[..., 2:]
    slope = across.abs() + along.abs()
    q = F.pad(slope, (1, 1, 1, 1))
    shifted = {(r, c): q[..., 1 + r : 1 + r + size, 1 + c : 1 + c + size] for r in (-1, 0, 1) for c in (-1, 0, 1)}

    def largest(before: tuple[int, int], after: tuple[int, int]) -> Tensor:
        return (slope > shifted[before]) & (slope >= shifted[after])

    steepness = along.abs() / across.abs().clamp(min=1e-9)
    diagonal = torch.where(
        across * along < 0,
        (slope > shifted[-1, 1]) & (slope > shifted[1, -1]),
        (slope > shifted[-1, -1]) & (slope > shifted[1, 1]),
    )
    tangent = 2**0.5 - 1  # of 22.5 degrees; that of 67.5 degrees is 2 more
    ridge = torch.where(steepness > tangent + 2, largest((-1, 0), (1, 0)), diagonal)
    ridge = torch.where(steepness < tangent, largest((0, -1), (0, 1)), ridge)
    weak = ridge & (slope > low)
    found, reached = weak & (slope > high), torch.zeros_like(weak)
    while not torch.equal(found, reached):
        reached = found
        found = weak & (F.max_pool2d(found.float(), 3, 1, 1) > 0)
    return found


def distances(edge: Tensor) -> Tensor:
    """Distance from the nearest edge pixel, at most ``_FAR``, bool to float64 [B, 1, S, S].

    Along steps to neighbours, to diagonal neighbours and of a knight, of lengths 1, 1.4 and 2.1969 (Borgefors 1986),
    as OpenCV measures it: within 2 % of the Euclidean distance.
    """
    size = edge.shape[-1]
    distance = torch.where(edge, 0.0, float(_FAR)).double()
    while True:
        padded, shorter = F.pad(distance, (2, 2, 2, 2), value=float(_FAR)), distance
        for row, column, length in _STEPS:
            there = padded[..., 2 + row : 2 + row + size, 2 + column : 2 + column + size]
            shorter = torch.minimum(shorter, there + length)
        if torch.equal(shorter, distance):
            return distance
        distance = shorter


def equalize(levels: Tensor) -> Tensor:
    """Histogram equalisation of [B, 1, S, S] with whole values 0 to 255, each image on its own, as OpenCV does it."""
    n, flat = len(levels), levels.long().flatten(1)
    counts = torch.zeros(n, 256, dtype=torch.float64, device=levels.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.float64))
    lowest = flat.amin(1, keepdim=True)
    rest = flat.shape[1] - counts.gather(1, lowest)  # pixels above the lowest level
    rank = counts.cumsum(1) - counts.gather(1, lowest)
    mapped = (rank * 255 / rest.clamp(min=1)).round().clamp(0, 255)
    return torch.where(rest > 0, mapped.gather(1, flat), flat.double()).view_as(levels)

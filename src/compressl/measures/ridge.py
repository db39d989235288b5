"""Ridge classifier in closed form, its regularisation chosen by leave-one-out in closed form: for few labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from compressl.errors import DataError
from compressl.measures.linear import LinearProbe, standardise

RIDGES = tuple(10.0 ** (k / 2) for k in range(-8, 9))  # 1e-4 to 1e4, two a decade, in units of a feature's variance
CHUNK = 2**24  # float64 values at a time: bounds the memory
RANK = 1e-10  # eigenvalues below this share of the largest are those of a direction without images


@dataclass(frozen=True)
class Decomposition:
    """Standardised features X = A V^T with orthonormal columns of V, and what the ridge needs of them, float64.

    R is the rank; a solution for any regularisation costs R C products, and no matrix is inverted again.
    """

    x: Tensor  # float32 [N, F], centred
    mean: Tensor  # [F]
    std: Tensor  # [F]
    vectors: Tensor  # V [F, R]
    values: Tensor  # s^2 [R]: of X^T X
    shares: Tensor  # [C]: mean of the one-hot targets
    projected: Tensor  # A^T (Y - shares) [R, C]


def decompose(features: Tensor, labels: Tensor, classes: int) -> Decomposition:
    """From the smaller of X^T X [F, F] and X X^T [N, N].

    Args:
        features: [N, F]; standardised by their own mean and deviation.
        labels: int64 [N].

    Raises:
        DataError: a value is not finite, all features are constant, or there are fewer than two images.
    """
    x, mean, std = standardise(features)
    n, f = x.shape
    if not bool(x.any()):
        raise DataError("Every feature is constant over the labelled images.", "The representation collapsed.")
    if n >= f:
        values, vectors = torch.linalg.eigh(torch.stack([part.T @ part for part in _parts(x)]).sum(0))
    else:
        rows = x.double()
        values, left = torch.linalg.eigh(rows @ rows.T)
    kept = values > RANK * values[-1]
    values = values[kept]
    vectors = vectors[:, kept] if n >= f else rows.T @ left[:, kept] / values.sqrt()
    sums = x.new_zeros(classes, f, dtype=torch.float64)
    for part, own in zip(_parts(x), torch.split(labels, _rows(x)), strict=True):
        sums.index_add_(0, own, part)
    # X is centred: X^T (Y - shares) = X^T Y
    shares = labels.bincount(minlength=classes).double() / n
    return Decomposition(x, mean, std, vectors, values, shares, vectors.T @ sums.T)


def leave_one_out(found: Decomposition, labels: Tensor, ridges: Tensor) -> Tensor:
    """Mean squared error of each regularisation on images left out in turn, [L], in closed form (Allen 1974)::

        e_i = (y_i - yhat_i) / (1 - h_i),    h_i = 1 / N + sum_r a_ir^2 / (s_r^2 + N ridge)

    summed over classes. The standardisation is that of all images. y: one-hot; yhat: of the fit on all images.

    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 1.5], [3.0, 1.0]])
    >>> y = torch.tensor([0, 0, 1, 1])
    >>> leave_one_out(decompose(x, y, 2), y, torch.tensor([0.1], dtype=torch.float64)).round(decimals=3).tolist()
    [0.093]
    """
    n = len(labels)
    damped = 1 / (found.values[:, None] + n * ridges)  # [R, L]
    total = torch.zeros_like(ridges)
    for part, own in zip(_parts(found.x), torch.split(labels, _rows(found.x)), strict=True):
        a = part @ found.vectors  # [B, R]
        left = 1 - 1 / n - a.square() @ damped  # 1 - h_i [B, L]
        y = F.one_hot(own, len(found.shares)) - found.shares  # [B, C]
        for k in range(len(ridges)):
            error = y - a @ (damped[:, k, None] * found.projected)
            total[k] += (error / left[:, k, None].clamp_min(1e-12)).square().sum()
    return total / n


def fit_ridge(features: Tensor, labels: Tensor, classes: int, ridges: tuple[float, ...] = RIDGES) -> LinearProbe:
    """The ridge classifier: mean ||y - x W - b||^2 + ridge ||W||^2 on standardised features, one-hot y.

    Of several regularisations the one with the least squared error on images left out in turn; of equals the largest.
    Only the images given have a part in it, so with one image of each class leave-one-out has no image of the class
    that it asks for, and takes the largest regularisation: the class means, in effect.

    Args:
        features: [N, F].
        labels: int64 [N]; a class without images is never predicted.

    Returns:
        a probe; its ``weight_decay`` is the ridge.

    Raises:
        DataError: see :func:`decompose`.

    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 1.5], [3.0, 1.0]])
    >>> fit_ridge(x, torch.tensor([0, 0, 1, 1]), classes=2).predict(x).tolist()
    [0, 0, 1, 1]
    """
    found = decompose(features, labels, classes)
    candidates = torch.tensor(sorted(ridges, reverse=True), dtype=torch.float64, device=labels.device)
    ridge = candidates[leave_one_out(found, labels, candidates).argmin()]
    weight = found.vectors @ (found.projected / (found.values[:, None] + len(labels) * ridge))
    bias = torch.where(found.shares > 0, found.shares, -torch.inf)
    return LinearProbe(found.mean, found.std, weight.float(), bias.float(), float(ridge))


def _rows(x: Tensor) -> int:
    return max(1, CHUNK // x.shape[1])


def _parts(x: Tensor) -> Iterator[Tensor]:
    """Rows in float64, some at a time."""
    return (part.double() for part in torch.split(x, _rows(x)))

"""How many dimensions a representation fills, and what share of tasks that many dimensions can solve.

"The rank" of features has several definitions that disagree. Each one here says which it is.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from compressl.errors import DataError

ABSOLUTE, RELATIVE = 1e-4, 1e-2  # an eigenvalue counts above max(1e-4, 0.01 lambda_max) (Dubois et al. 2023, code)


def covariance_spectrum(features: Tensor) -> Tensor:
    """Eigenvalues of the covariance of features [N, F], falling, float64 [F]. Divided by N - 1.

    Raises:
        DataError: fewer than two images, features that are not finite, or all images with the same features.

    >>> covariance_spectrum(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).tolist()
    [2.0, 0.0]
    """
    x = checked(features)
    rising: Tensor = torch.linalg.eigvalsh(torch.cov(x.T).reshape(x.shape[1], x.shape[1]))
    return rising.clamp_min(0).flip(0)


def correlation_rank(features: Tensor) -> int:
    """Number of eigenvalues of the correlation matrix above max(1e-4, 0.01 lambda_max); features [N, F].

    Constant columns are left out. Source: Dubois, Hashimoto and Liang 2023, arXiv:2302.03068, released code.

    Raises:
        DataError: as :func:`covariance_spectrum`.

    >>> correlation_rank(torch.tensor([[0.0, 1.0, 5.0], [1.0, -1.0, 5.0], [2.0, 1.0, 5.0]]))
    2
    """
    x = checked(features)
    x = x[:, varying(x)]
    eigenvalues = torch.linalg.eigvalsh(torch.corrcoef(x.T).reshape(x.shape[1], x.shape[1])).abs()
    return int((eigenvalues > max(ABSOLUTE, RELATIVE * float(eigenvalues.max()))).sum())


def rankme(features: Tensor, epsilon: float = 1e-7) -> float:
    """RankMe: exp(-sum_k p_k log p_k), p_k = sigma_k / sum sigma + epsilon, of the singular values of features [N, F].

    The features are not centred, by definition. Source: Garrido et al. 2023, arXiv:2210.02885, equation 1.

    Raises:
        DataError: as :func:`covariance_spectrum`.

    >>> round(rankme(torch.eye(4)), 4)
    4.0
    """
    sigma = torch.linalg.svdvals(checked(features))
    p = sigma / sigma.sum() + epsilon
    return float(torch.special.entr(p).sum().exp())


def entropy_rank(spectrum: Tensor) -> float:
    """exp(H(p)), p = lambda / sum lambda: the effective rank of a spectrum [F] (Roy and Vetterli 2007).

    >>> round(entropy_rank(torch.tensor([1.0, 1.0, 0.0])), 4)
    2.0
    """
    return float(torch.special.entr(spectrum / spectrum.sum()).sum().exp())


def participation_ratio(spectrum: Tensor) -> float:
    """(sum lambda)^2 / sum lambda^2 of a spectrum [F].

    >>> participation_ratio(torch.tensor([1.0, 1.0, 0.0]))
    2.0
    """
    return float(spectrum.sum().square() / spectrum.square().sum())


def share_of_tasks(classes: int, dim: int) -> float:
    """S(K, d) = 2^(1-K) sum_{k=0}^{min(d, K-1)} binom(K-1, k).

    The share of the 2^K binary labelings of K classes, whose codes are in general position in d dimensions, that an
    affine classifier solves without error. It is 1 if and only if d >= K - 1, the dimension that Dubois et al. 2022
    (arXiv:2209.06235, theorem 1) ask for. Source: Cover 1965, "Geometrical and statistical properties of systems of
    linear inequalities"; its use here is ours.

    >>> share_of_tasks(6, 2), share_of_tasks(6, 5)
    (0.5, 1.0)
    """
    if classes < 1 or dim < 0:
        raise DataError(f"There are {classes} classes in {dim} dimensions.", "Give at least one class.")
    term, total = 1, 0
    for k in range(min(dim, classes - 1) + 1):
        total += term
        term = term * (classes - 1 - k) // (k + 1)
    return float(Fraction(total, 2 ** (classes - 1)))


def worst_expected_risk(classes: int, samples: int) -> float:
    """W_n* = sup_p sum_i p_i (1 - p_i)^n over distributions p of K classes.

    The expected 0-1 risk, for the worst task and the worst empirical risk minimiser, of an ideal (invariant, affinely
    independent) representation after n labelled samples: the minimiser errs exactly on classes that it has not seen.
    For K >= n + 1 the uniform p is worst, W_n* = (1 - 1/K)^n; else one class holds what K - 1 classes of mass q leave.
    Source: ours, from definition 3 and theorem 1 of Dubois et al. 2022, arXiv:2209.06235.

    >>> worst_expected_risk(10, 1), round(worst_expected_risk(2, 10), 9)
    (0.9, 0.03504939)
    """
    k, n = classes, samples
    if k < 1 or n < 0:
        raise DataError(f"There are {k} classes and {n} samples.", "Give at least one class and no negative number.")
    if k >= n + 1:
        return (1 - 1 / k) ** n

    def risk(q: Tensor) -> Tensor:
        rare = (k - 1) * q
        return rare * (1 - q) ** n + (1 - rare) * rare**n

    low, high = 0.0, 1 / (k - 1) if k > 1 else 0.0
    best = 0.0
    for _ in range(6):  # a grid, and finer ones about its best point
        q = torch.linspace(low, high, 4001, dtype=torch.float64)
        at = int(risk(q).argmax())
        best = float(risk(q)[at])
        low, high = float(q[max(at - 1, 0)]), float(q[min(at + 1, len(q) - 1)])
    return best


def varying(features: Tensor) -> Tensor:
    """Which columns of [N, F] are not constant up to rounding, bool [F]."""
    span = features.amax(0) - features.amin(0)
    return span > 1e-6 * features.abs().amax(0).clamp_min(torch.finfo(torch.float64).tiny)


def checked(features: Tensor) -> Tensor:
    """Features [N, F] as float64, on the CPU where the device has no float64.

    Raises:
        DataError: fewer than two images, features that are not finite, or all images with the same features.
    """
    if features.ndim != 2 or len(features) < 2:
        raise DataError(f"The features have the shape {list(features.shape)}.", "Give [N, F] of two images or more.")
    x = (features.cpu() if features.device.type == "mps" else features).double()
    if not bool(torch.isfinite(x).all()):
        raise DataError("Some features are not finite.", "The training diverged; pretrain again.")
    if not bool(varying(x).any()):
        raise DataError("All images have the same features.", "The representation collapsed; pretrain again.")
    return x

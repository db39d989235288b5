"""The score of a law from a sample of it: Stein's identity, solved by ridge regression.

The score s(x) = grad log p(x) of the law of the embeddings is what the gradient of their entropy needs, and it needs
nothing else: with embeddings z = f(v), d H(z) = -E[ s(z)^T dz ]. No density is estimated.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from compressl.errors import UsageError
from compressl.objectives.common import check_positive, cosine, full_precision, unit

Estimator = Literal["released", "sphere"]

_TRIES = 7  # the ridge as given, then ten times as much, up to six times


@torch.no_grad()
def stein_score(
    x: Tensor, ridge: float = 0.01, min_bandwidth: float = 0.1, estimator: Estimator = "released"
) -> Tensor:
    """S_i, an estimate of grad log p(x_i) at each row of a sample, [..., n, D] -> [..., n, D]; a constant: no gradient.

    Each leading index is a sample of its own. Kernel K_ij = exp(x_i^T x_j / tau), with tau the upper median of all n^2
    entries of 1 - x_i^T x_j (the n zeros of the diagonal among them), but at least ``min_bandwidth``. With r = K 1:

        released:  S = -(K + eta I)^{-1} diag(r) X / tau
        sphere:    S = -(K + eta I)^{-1} [ (diag(r) X - (K o C) X) / tau - (D-1) K X ],  projected on the tangents

    ``released`` uses the ambient gradient of K, as the paper's code does, and so leaves out the curvature of the
    sphere: in few dimensions (up to about 8) it overstates the gradient of the entropy by 15 to 60 %; from 32 on
    the two agree (measured). ``sphere`` is Stein's identity on the sphere, ours. With no more rows than
    dimensions single scores are rough (a cosine of about 0.4 with the truth); their mean effect keeps its direction and
    shrinks.

    Computed in float64 on every device (on the CPU for one without, such as MPS): near a collapse, rounding a Gram
    matrix to bfloat16 or TF32 leaves nothing of the score. Where the ridge is too small for a Cholesky factor it grows
    tenfold, up to six times; a sample that still has none gets a score of zero (``score_norm`` of MVEB tells).

    Args:
        x: unit rows, n >= 2.
        ridge: eta, on the scale of K.
        min_bandwidth: the smallest tau.

    Raises:
        UsageError: for fewer than two rows, an unknown estimator, or a ridge or bandwidth that is not positive.

    Source: Li and Turner 2018, arXiv:1705.07107 (the estimator); the released code of Wen et al. 2024, arXiv:2403.19078
    (kernel, median, ridge); the spherical form is ours.

    >>> stein_score(torch.eye(2))  # each points to the other, where the density is: entropy grows along -S
    tensor([[-1.5744,  0.5771],
            [ 0.5771, -1.5744]])
    """
    check_score(ridge, min_bandwidth, estimator)
    if x.ndim < 2 or x.shape[-2] < 2:
        raise UsageError(f"The sample has shape {list(x.shape)}.", "Give [..., n, D] with n of at least 2.")
    n, dim = x.shape[-2:]
    with full_precision(x) as (x,):
        # float32 rows have length 1 to 1e-7 only
        X = unit((x.cpu() if x.device.type == "mps" else x).double())  # [..., n, D]
        C = X @ X.mT  # cosines     [..., n, n]
        tau = _upper_median(1 - C).clamp_min(min_bandwidth)  # [..., 1, 1]
        K = ((C - 1) / tau).exp()  # exp(C / tau), scaled by exp(-1 / tau): nothing overflows     [..., n, n]
        eta = ridge * (-1 / tau).exp()  # the ridge, scaled alike     [..., 1, 1]
        G = K.sum(-1, keepdim=True) * X / tau  # G_i = sum_k grad_{x_k} K_ik = r_i x_i / tau     [..., n, D]
        if estimator == "sphere":
            G = G - (K * C) @ X / tau - (dim - 1) * (K @ X)  # tangential gradients, and the curvature     [..., n, D]
        # Demmel's condition: with a ridge this large no rounding can spoil the factor, and the device need not be asked
        rounding = n * (n + dim / min_bandwidth) * torch.finfo(X.dtype).eps
        S = -_ridge_solve(K, eta, G, certain=ridge * math.exp(-1 / min_bandwidth) > rounding)  # [..., n, D]
        return (tangent(S, X) if estimator == "sphere" else S).to(x)


def tangent(s: Tensor, x: Tensor) -> Tensor:
    """P_x s = s - (x^T s) x for unit rows x, [..., D]: what of a gradient a normalised embedding can follow."""
    return s - cosine(s, x)[..., None] * x


def check_score(ridge: float, min_bandwidth: float, estimator: str) -> None:
    """Refuse what :func:`stein_score` cannot work with.

    Raises:
        UsageError: naming it.
    """
    check_positive(ridge=ridge, min_bandwidth=min_bandwidth)
    if estimator not in get_args(Estimator):
        raise UsageError(f"estimator is {estimator!r}.", f"Give one of: {', '.join(get_args(Estimator))}.")


def _upper_median(distance: Tensor) -> Tensor:
    """The floor(n^2 / 2)-th largest of the n^2 entries, [..., n, n] -> [..., 1, 1]."""
    entries = distance.flatten(-2)
    rank = entries.shape[-1] - entries.shape[-1] // 2 + 1  # counted from the smallest, the first being 1
    return entries.kthvalue(rank, dim=-1).values[..., None, None]


def _ridge_solve(K: Tensor, eta: Tensor, G: Tensor, *, certain: bool) -> Tensor:
    """(K + eta I)^{-1} G, [..., n, n] x [..., 1, 1] x [..., n, D] -> [..., n, D]; zero where it cannot be had.

    ``certain``: that the first try succeeds, which spares waiting for a GPU's answer.
    """
    identity = torch.eye(K.shape[-1], dtype=K.dtype, device=K.device)
    for _ in range(_TRIES):
        L, info = torch.linalg.cholesky_ex(K + eta * identity)
        failed = (info != 0)[..., None, None]
        if certain or not bool(failed.any()):
            break
        eta = torch.where(failed, (10 * eta).clamp_min(torch.finfo(K.dtype).eps), eta)
    return torch.cholesky_solve(G, L).masked_fill(failed, 0)

"""Residual information I(X;Z|Y): what the code z keeps of its view x that the other branch y cannot predict."""

from __future__ import annotations

from torch import Tensor

from compressl.objectives.common import Terms
from compressl.objectives.von_mises_fisher import VonMisesFisher


def residual_information(
    mean: Tensor, z: Tensor, backward_mean: Tensor, e: VonMisesFisher, b: VonMisesFisher, *, analytic: bool = False
) -> tuple[Tensor, Terms]:
    """R = log e(z|x) - log b(z|y), an upper bound of I(X;Z|Y) in expectation, for each image [N] in nats.

    Args:
        mean: mean direction of e(z|x), unit rows [N, D].
        z: a sample of e(z|x), unit rows [N, D]; unused if ``analytic``.
        backward_mean: mean direction of b(z|y), unit rows [N, D].
        e: forward encoder.
        b: backward encoder.
        analytic: the expectation KL(e || b) instead of the value at the sample: the same mean, less variance.

    Returns:
        R [N], and the means over images of: ``residual_information``; ``residual_information_excess``, R minus the
        divergence at equal means (the constant that the two concentrations cost); ``forward_entropy``, -log e(z|x);
        ``backward_cross_entropy``, -log b(z|y).

    Source: Lee et al. 2021, arXiv:2109.12909 and its released code.

    >>> import torch
    >>> mean, e, b = torch.eye(2, 8), VonMisesFisher(8, 1024.0), VonMisesFisher(8, 10.0)
    >>> R, terms = residual_information(mean, mean, mean, e, b, analytic=True)
    >>> R, terms["residual_information_excess"]
    (tensor([12.2862, 12.2862]), tensor(0.))
    """
    if analytic:
        residual = e.kl(mean, b, backward_mean)  # E_e[log e - log b]     [N]
        forward_entropy = residual.new_full((), e.entropy)  # H(e)
        backward_cross_entropy = residual.detach().mean() + e.entropy  # E_e[-log b]
    else:
        # mu^T z does not depend on mu, so log e has no gradient; autodiff would find it as the difference of two
        # vectors of size kappa_e, which is noise in float32.
        log_e = e.log_prob(mean, z).detach()  # log Ct_e - kappa_e ||mu - z||^2 / 2     [N]
        log_b = b.log_prob(backward_mean, z)  # log Ct_b - kappa_b ||m - z||^2 / 2     [N]
        residual = log_e - log_b
        forward_entropy, backward_cross_entropy = -log_e.mean(), -log_b.detach().mean()
    value = residual.detach().mean()
    return residual, {
        "residual_information": value,
        "residual_information_excess": value - e.kl_floor(b),
        "forward_entropy": forward_entropy,
        "backward_cross_entropy": backward_cross_entropy,
    }

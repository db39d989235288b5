"""C-SimCLR: SimCLR whose code z is noisy, and pays for what it keeps of its view beyond what the other view tells."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from compressl.errors import UsageError
from compressl.objectives.common import (
    Terms,
    average,
    check_not_negative,
    check_positive,
    check_rows,
    cosine,
    full_precision,
    unit,
)
from compressl.objectives.residual_information import residual_information
from compressl.objectives.simclr import candidates, contrastive_cross_entropy
from compressl.objectives.von_mises_fisher import VonMisesFisher, von_mises_fisher


def csimclr_direction(
    mu: Tensor,
    z: Tensor,
    m: Tensor,
    e: VonMisesFisher,
    b: VonMisesFisher,
    beta: float | Tensor,
    *,
    analytic: bool = False,
    double_batch: bool = True,
) -> tuple[Tensor, Terms]:
    """L_i(x -> y) = beta R_i - ( log(2K-1) + log c(y_i|z_i) ), for each image [N] in nats.

    Args:
        mu: mean directions of the encoded view x, unit rows [N, D].
        z: samples of e(z|x) = vMF(mu, kappa_e), or mu itself, unit rows [N, D].
        m: mean directions of the other view y, unit rows [N, D]; b(z|y) = vMF(m, kappa_b).
        e: forward encoder, concentration kappa_e.
        b: backward encoder and decoder, concentration kappa_b.
        beta: weight of the residual information.
        analytic: residual information in closed form.
        double_batch: see :func:`contrastive_cross_entropy`.

    Returns:
        L [N], and the terms of :func:`contrastive_cross_entropy` and :func:`residual_information`.

    Source: Lee et al. 2021, arXiv:2109.12909 and its released code.

    >>> mu = torch.eye(4, 8)
    >>> loss, terms = csimclr_direction(mu, mu, mu, VonMisesFisher(8, 1024.0), VonMisesFisher(8, 10.0), beta=0.0)
    >>> loss[0], terms["mutual_information_bound"]
    (tensor(-1.9456), tensor(1.9456))
    """
    cross_entropy, contrast = contrastive_cross_entropy(z, mu, m, b.kappa, double_batch=double_batch)  # -log c     [N]
    residual, information = residual_information(mu, z, m, e, b, analytic=analytic)  # R     [N]
    bound = math.log(candidates(len(mu), double_batch)) - cross_entropy  # log(2K-1) + log c <= I(Y;Z)     [N]
    return beta * residual - bound, contrast | information


def csimclr(
    mu: Tensor,
    m: Tensor,
    z: Tensor,
    z_: Tensor,
    e: VonMisesFisher,
    b: VonMisesFisher,
    beta: float | Tensor,
    *,
    analytic: bool = False,
    double_batch: bool = True,
) -> tuple[Tensor, Terms]:
    """The mean over images of [ L_i(x -> y) + L_i(y -> x) ] / 2, given the codes.

    Args:
        mu: mean directions of view x, unit rows [N, D].
        m: mean directions of view y, unit rows [N, D].
        z: samples of e(z|x), unit rows [N, D].
        z_: samples of e(z|y), unit rows [N, D].
        e, b, beta, analytic, double_batch: as in :func:`csimclr_direction`.

    Returns:
        The loss, and its terms averaged over both directions, with ``alignment``, the mean of mu^T m.

    >>> mu = torch.eye(4, 8)
    >>> loss, terms = csimclr(mu, mu, mu, mu, VonMisesFisher(8, 1024.0), VonMisesFisher(8, 10.0), beta=0.0)
    >>> loss
    tensor(-1.9456)
    """
    forth, terms_forth = csimclr_direction(mu, z, m, e, b, beta, analytic=analytic, double_batch=double_batch)
    back, terms_back = csimclr_direction(m, z_, mu, e, b, beta, analytic=analytic, double_batch=double_batch)
    terms = average(terms_forth, terms_back) | {"alignment": cosine(mu, m).detach().mean()}
    return (forth + back).mean() / 2, terms


class CSimCLRLoss(nn.Module):
    """beta I(X;Z|Y) - I(Y;Z), bounded from above, averaged over images and both directions.

    ``forward(a, b, generator=None)`` takes the projections of the two views, raw [N, D] (normalised inside), N >= 2,
    and the generator of the noise; it returns ``(loss, terms)``: ``residual_information``,
    ``residual_information_excess``, ``mutual_information_bound``, ``cross_entropy``, ``contrastive_entropy``,
    ``forward_entropy``, ``backward_cross_entropy`` in nats, ``contrastive_accuracy``, and ``alignment``, the mean
    cosine of the two views.

    The value has the constants of the released code (hundreds of nats: the concentrations differ); the gradient is free
    of them. No stop-gradient: both views learn through z, b and the decoder.

    Args:
        kappa_e: concentration of e(z|x): how little noise z carries.
        kappa_b: concentration of b(z|y) and of the decoder, 1 / temperature.
        beta: weight of the residual information.
        sample: draw z ~ e(z|x); otherwise z is the mean direction.
        analytic: residual information in closed form; the decoder still sees a sample.
        double_batch: whether the first views of other images are negatives too.

    Raises:
        UsageError: for a kappa of 0 or less, a negative beta, ``analytic`` without ``sample``; in ``forward`` for
            N < 2 or mismatched shapes.

    Source: Lee et al. 2021, arXiv:2109.12909 and its released code, which sums the directions (twice this loss).

    >>> views = torch.eye(4, 256), torch.eye(4, 256)
    >>> loss, terms = CSimCLRLoss()(*views, generator=torch.Generator().manual_seed(0))
    >>> terms["residual_information"] > 0, terms["alignment"]
    (tensor(True), tensor(1.))
    """

    def __init__(
        self,
        kappa_e: float = 1024.0,
        kappa_b: float = 10.0,
        beta: float = 1.0,
        sample: bool = True,
        analytic: bool = False,
        *,
        double_batch: bool = True,
    ) -> None:
        super().__init__()
        check_positive(kappa_e=kappa_e, kappa_b=kappa_b)
        check_not_negative(beta=beta)
        if analytic and not sample:
            raise UsageError(
                "analytic=True averages the residual information over samples that sample=False never draws.",
                "Set sample=True, or analytic=False.",
            )
        self.kappa_e, self.kappa_b = kappa_e, kappa_b
        self.beta: float | Tensor = beta  # a schedule or a multiplier may change it
        self.sample, self.analytic, self.double_batch = sample, analytic, double_batch

    def forward(self, a: Tensor, b: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Terms]:
        check_rows({"a": a, "b": b}, at_least=2)
        with full_precision(a, b) as (a, b):
            mu, m = unit(a), unit(b)  # [N, D]
            e, b_ = (von_mises_fisher(a.shape[1], kappa) for kappa in (self.kappa_e, self.kappa_b))
            z = e.sample(mu, generator) if self.sample else mu  # z ~ e(z|x)     [N, D]
            z_ = e.sample(m, generator) if self.sample else m  # z' ~ e(z|y)     [N, D]
            return csimclr(mu, m, z, z_, e, b_, self.beta, analytic=self.analytic, double_batch=self.double_batch)

    def extra_repr(self) -> str:
        return ", ".join(
            f"{name}={getattr(self, name)}"
            for name in ("kappa_e", "kappa_b", "beta", "sample", "analytic", "double_batch")
        )

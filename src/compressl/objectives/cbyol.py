"""C-BYOL: BYOL that predicts through a noisy code z, and pays for what z keeps beyond the slow copy's embedding."""

from __future__ import annotations

from torch import Tensor, nn

from compressl.errors import UsageError
from compressl.objectives.byol import regression
from compressl.objectives.common import (
    Pair,
    Terms,
    average,
    check_not_negative,
    check_pairs,
    check_positive,
    check_rows,
    cosine,
    full_precision,
    unit,
)
from compressl.objectives.residual_information import residual_information
from compressl.objectives.von_mises_fisher import VonMisesFisher, von_mises_fisher


def cbyol_direction(
    prediction: Tensor,
    target: Tensor,
    mu: Tensor,
    z: Tensor,
    bdir: Tensor,
    e: VonMisesFisher,
    b: VonMisesFisher,
    beta: float | Tensor,
    weight: float,
    *,
    analytic: bool = False,
) -> tuple[Tensor, Terms]:
    """w_d D(v1 -> v2) + beta R(v1), for each image [N].

    Args:
        prediction: yhat(v1), unit rows [N, D'].
        target: that(v2), unit rows [N, D'].
        mu: mean directions of e(z|v1) = vMF(mu, kappa_e), unit rows [N, D].
        z: samples of e(z|v1), unit rows [N, D].
        bdir: mean directions of b(z|t(v1)) = vMF(bdir, kappa_b), unit rows [N, D], of the *same* view.
        e: forward encoder.
        b: backward encoder.
        beta: weight of the residual information.
        weight: w_d of the regression.
        analytic: residual information in closed form.

    Returns:
        The loss [N], and the terms of :func:`regression` and :func:`residual_information`, with
        ``backward_alignment``, the mean cosine of mu and bdir.

    Source: Lee et al. 2021, arXiv:2109.12909 and its released code.

    >>> import torch
    >>> x, e, b = torch.eye(2, 8), VonMisesFisher(8, 16384.0), VonMisesFisher(8, 10.0)
    >>> loss, terms = cbyol_direction(x, x, x, x, x, e, b, beta=0.0, weight=5.0)
    >>> loss
    tensor([0., 0.])
    """
    distance, alignment = regression(prediction, target)  # D(v1 -> v2)     [N]
    residual, information = residual_information(mu, z, bdir, e, b, analytic=analytic)  # R(v1)     [N]
    backward = {"backward_alignment": cosine(mu, bdir).detach().mean()}
    return weight * distance + beta * residual, alignment | information | backward


class CBYOLLoss(nn.Module):
    """w_d || yhat(v1) - that(v2) ||^2 + beta I(X;Z|Y), averaged over images and both directions.

    ``forward(predictions, targets, means, samples, backward)`` takes pairs (view 1, view 2) of raw [N, D]; all are
    normalised inside. It returns ``(loss, terms)``: ``regression`` (unweighted), ``alignment`` (mean cosine of
    prediction and target), ``residual_information``, ``residual_information_excess``, ``forward_entropy``,
    ``backward_cross_entropy`` in nats, and ``backward_alignment`` (mean cosine of mean and backward direction).

    - ``predictions``: W z of each view; regressed on the target of the *other* view.
    - ``targets``: projections of the slow copy; no gradient reaches them.
    - ``means``: MLP_q outputs of each view, the mean directions of e(z|v).
    - ``samples``: z(v) ~ e(z|v), from ``VonMisesFisher.sample(n(means[v]))``, in at least float32. Normalising again
      changes neither a unit row nor its gradient along the sphere, and lets an evaluation pass ``means`` as samples.
    - ``backward``: outputs of m on the *same* view's target, as in the released code. Swap the pair to condition b on
      the other view.

    Args:
        kappa_e: concentration of e(z|v): how little noise z carries.
        kappa_b: concentration of b.
        beta: weight of the residual information.
        weight: w_d = kappa_d / 2 of the regression.
        analytic: residual information in closed form; ``samples`` then matter only through ``predictions``.

    Raises:
        UsageError: for a kappa or weight of 0 or less, a negative beta; in ``forward`` for mismatched shapes.

    Source: Lee et al. 2021, arXiv:2109.12909 and its released code, which sums the directions (twice this loss).

    >>> import torch
    >>> v = torch.eye(4, 256), torch.eye(4, 256)
    >>> loss, terms = CBYOLLoss(analytic=True)(v, v, v, v, v)
    >>> loss, terms["residual_information_excess"]
    (tensor(522.3607), tensor(0.))
    """

    def __init__(
        self,
        kappa_e: float = 16384.0,
        kappa_b: float = 10.0,
        beta: float = 1.0,
        weight: float = 5.0,
        *,
        analytic: bool = False,
    ) -> None:
        super().__init__()
        check_positive(kappa_e=kappa_e, kappa_b=kappa_b, weight=weight)
        check_not_negative(beta=beta)
        self.kappa_e, self.kappa_b, self.weight = kappa_e, kappa_b, weight
        self.beta: float | Tensor = beta  # a schedule or a multiplier may change it
        self.analytic = analytic

    def forward(
        self, predictions: Pair, targets: Pair, means: Pair, samples: Pair, backward: Pair
    ) -> tuple[Tensor, Terms]:
        check_pairs(predictions=predictions, targets=targets, means=means, samples=samples, backward=backward)
        with full_precision(*predictions, *targets, *means, *samples, *backward) as tensors:
            y1, y2, t1, t2, mu1, mu2, z1, z2, b1, b2 = (unit(x) for x in tensors)  # [N, D]
            check_rows({"predictions": y1, "targets": t1})
            check_rows({"means": mu1, "samples": z1, "backward": b1})
            if len(y1) != len(mu1):
                raise UsageError(f"{len(y1)} predictions, {len(mu1)} means.", "Give one of each for every image.")
            e, b = (von_mises_fisher(mu1.shape[1], kappa) for kappa in (self.kappa_e, self.kappa_b))
            numbers = (e, b, self.beta, self.weight)
            forth, terms_forth = cbyol_direction(y1, t2, mu1, z1, b1, *numbers, analytic=self.analytic)  # [N]
            back, terms_back = cbyol_direction(y2, t1, mu2, z2, b2, *numbers, analytic=self.analytic)  # [N]
            return (forth + back).mean() / 2, average(terms_forth, terms_back)

    def extra_repr(self) -> str:
        return ", ".join(
            f"{name}={getattr(self, name)}" for name in ("kappa_e", "kappa_b", "beta", "weight", "analytic")
        )

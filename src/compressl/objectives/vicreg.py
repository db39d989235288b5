"""VICReg: views agree (invariance), every dimension varies (variance), no two dimensions covary (covariance)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from compressl.objectives.common import (
    Terms,
    check_not_negative,
    check_positive,
    check_rows,
    full_precision,
    off_diagonal,
)


def variance_hinge(z: Tensor, epsilon: float) -> Tensor:
    """v(Z) = mean_j max(0, 1 - S(z^j)), S(x) = sqrt(Var(x) + epsilon), of [N, D]; Var is unbiased.

    Source: Bardes et al. 2022, arXiv:2105.04906, equations 1 and 2, with the gamma of the paper, 1.

    >>> import torch
    >>> variance_hinge(torch.tensor([[0.0, 0.0], [4.0, 0.0]]), epsilon=1e-4)
    tensor(0.4950)
    """
    S = (z.var(0) + epsilon).sqrt()  # [D]
    return F.relu(1 - S).mean()


def covariance_penalty(z: Tensor) -> Tensor:
    """c(Z) = sum_{i != j} C(Z)_ij^2 / D, with C the unbiased covariance over the images of [N, D].

    Source: Bardes et al. 2022, arXiv:2105.04906, equations 3 and 4.

    >>> import torch
    >>> covariance_penalty(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    tensor(0.2500)
    """
    centred = z - z.mean(0)
    C = centred.T @ centred / (len(z) - 1)  # C_ij     [D, D]
    return off_diagonal(C).square().sum() / z.shape[1]


class VICRegLoss(nn.Module):
    """lambda s(A, B) + mu [ v(A) + v(B) ] / 2 + nu [ c(A) + c(B) ].

    ``forward(a, b)`` takes the expander's outputs for the two views, raw [N, D], N >= 2; nothing is normalised. It
    returns ``(loss, terms)``, unweighted: ``invariance``, s, the squared difference of the views averaged over images
    *and dimensions*; ``variance``, the hinge averaged over the two views, 0 once every standard deviation is 1;
    ``covariance``, the penalty summed over the two views.

    The mean over the views in the variance is the official code's; the paper's equation 6 and its pseudo-code sum them
    (set ``variance`` to 50 for that). Averaging s over dimensions is the code's, too, where equation 5 sums.

    Args:
        invariance: lambda.
        variance: mu.
        covariance: nu.
        epsilon: added to each variance, so that the root has a gradient at a collapse.

    Raises:
        UsageError: for a negative weight, or an epsilon of 0 or less; in ``forward`` for N < 2 or mismatched shapes.

    Source: Bardes et al. 2022, arXiv:2105.04906, equations 1 to 6 and algorithm 1, and the official code.

    >>> import torch
    >>> a = 2 * torch.eye(8)
    >>> loss, terms = VICRegLoss()(a, a + 0.1)
    >>> terms["invariance"], terms["variance"], terms["covariance"]
    (tensor(0.0100), tensor(0.2928), tensor(0.0714))
    """

    def __init__(
        self, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0, epsilon: float = 1e-4
    ) -> None:
        super().__init__()
        check_not_negative(invariance=invariance, variance=variance, covariance=covariance)
        check_positive(epsilon=epsilon)
        self.invariance, self.variance, self.covariance, self.epsilon = invariance, variance, covariance, epsilon

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Terms]:
        check_rows({"a": a, "b": b}, at_least=2)
        with full_precision(a, b) as (a, b):
            s = F.mse_loss(a, b)
            v = (variance_hinge(a, self.epsilon) + variance_hinge(b, self.epsilon)) / 2
            c = covariance_penalty(a) + covariance_penalty(b)
            terms = {"invariance": s.detach(), "variance": v.detach(), "covariance": c.detach()}
            return self.invariance * s + self.variance * v + self.covariance * c, terms

    def extra_repr(self) -> str:
        return ", ".join(
            f"{name}={getattr(self, name)}" for name in ("invariance", "variance", "covariance", "epsilon")
        )

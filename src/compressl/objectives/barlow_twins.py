"""Barlow Twins: each dimension of one view predicts the same dimension of the other view, and no other dimension."""

from __future__ import annotations

from torch import Tensor, nn

from compressl.objectives.common import Terms, check_positive, check_rows, full_precision, off_diagonal

EPSILON = 1e-5  # of batch norm, which the official code standardises with


def standardize(z: Tensor) -> Tensor:
    """Each dimension with mean 0 and variance 1 over the images, [N, D]: batch norm without scale and shift.

    A dimension that is alike in all images becomes 0 everywhere.

    >>> import torch
    >>> standardize(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
    tensor([[-1.0000,  0.0000],
            [ 1.0000,  0.0000]])
    """
    centred = z - z.mean(0)
    return centred * (centred.square().mean(0) + EPSILON).rsqrt()  # the biased variance, as in batch norm


class BarlowTwinsLoss(nn.Module):
    """sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2, with C the cross-correlation of the views over the batch.

    ``forward(a, b)`` takes the projections of the two views, raw [N, D], N >= 2 (standardised inside, each view by its
    own mean and variance). It returns ``(loss, terms)``: ``invariance``, the first sum; ``redundancy``, the second,
    unweighted; ``correlation``, the mean of C_ii, the dimensions' counterpart of an alignment.

    The sums run over dimensions, so the loss grows with D (at random, C_ij^2 is about 1 / N: the redundancy begins near
    D^2 / N). It is the paper's scale; multiply it where an optimizer heeds the scale of gradients. The loss is
    symmetric in the views: swapping them transposes C.

    Args:
        off_diagonal: lambda, the weight of the redundancy (the paper: 0.005; the official code: 0.0051).

    Raises:
        UsageError: for a weight of 0 or less; in ``forward`` for N < 2 or mismatched shapes.

    Source: Zbontar et al. 2021, arXiv:2103.03230, equations 1 and 2; the standardisation is the official code's.

    >>> import torch
    >>> signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> loss, terms = BarlowTwinsLoss()(signs, signs)  # two dimensions that do not correlate
    >>> bool(loss < 1e-8), terms["correlation"]
    (True, tensor(1.0000))
    """

    def __init__(self, off_diagonal: float = 0.0051) -> None:
        super().__init__()
        check_positive(off_diagonal=off_diagonal)
        self.off_diagonal = off_diagonal

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Terms]:
        check_rows({"a": a, "b": b}, at_least=2)
        with full_precision(a, b) as (a, b):
            C = standardize(a).T @ standardize(b) / len(a)  # C_ij     [D, D]
            invariance = (1 - C.diagonal()).square().sum()
            redundancy = off_diagonal(C).square().sum()
            terms = {
                "invariance": invariance.detach(),
                "redundancy": redundancy.detach(),
                "correlation": C.detach().diagonal().mean(),
            }
            return invariance + self.off_diagonal * redundancy, terms

    def extra_repr(self) -> str:
        return f"off_diagonal={self.off_diagonal}"

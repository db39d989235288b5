"""SimSiam: predict one branch of a network from the other, which is held still."""

from __future__ import annotations

from torch import Tensor, nn

from compressl.objectives.common import (
    Pair,
    Terms,
    average,
    check_pairs,
    check_rows,
    cosine,
    full_precision,
    unit,
)


def negative_cosine(prediction: Tensor, target: Tensor) -> tuple[Tensor, Terms]:
    """D(p, z) = -p^T z for each image [N], of unit rows [N, D].

    Returns:
        D [N], and: ``alignment``, the mean of p^T z; ``spread``, the standard deviation of the target's coordinates
        over the images, averaged over coordinates, times sqrt(D): 1 where the targets lie all around the sphere, 0
        where they have collapsed to a point.

    Source: Chen and He 2021, arXiv:2011.10566, equation 1; the spread is that of section 4.1 (figure 2, middle).

    >>> import torch
    >>> D, terms = negative_cosine(torch.eye(2), torch.eye(2).flip(0))
    >>> D, terms["spread"]
    (tensor([-0., -0.]), tensor(0.7071))
    """
    distance = -cosine(prediction, target)  # [N]
    spread = target.detach().std(0, correction=0).mean() * target.shape[1] ** 0.5
    return distance, {"alignment": -distance.detach().mean(), "spread": spread}


class SimSiamLoss(nn.Module):
    """[ D(p1, sg[z2]) + D(p2, sg[z1]) ] / 2, averaged over images: from 1 down to -1.

    ``forward(predictions, targets)`` takes pairs (view 1, view 2) of raw [N, D] (normalised inside); the prediction of
    one view is compared with the target of the other. It returns ``(loss, terms)``: ``alignment``, the mean cosine of
    prediction and target, and ``spread``, how far the targets are from being all alike (1: all around the sphere, 0:
    collapsed).

    Args:
        stop_gradient: sg, whether the targets are held still. Without it everything collapses to one point, which is
            the paper's main finding; it is here so that this can be shown.

    Raises:
        UsageError: in ``forward`` for mismatched shapes.

    Source: Chen and He 2021, arXiv:2011.10566, equations 2 to 4.

    >>> import torch
    >>> views = torch.eye(4, 8), torch.eye(4, 8)
    >>> loss, terms = SimSiamLoss()(views, views)
    >>> loss, terms["alignment"]
    (tensor(-1.), tensor(1.))
    """

    def __init__(self, *, stop_gradient: bool = True) -> None:
        super().__init__()
        self.stop_gradient = stop_gradient

    def forward(self, predictions: Pair, targets: Pair) -> tuple[Tensor, Terms]:
        check_pairs(predictions=predictions, targets=targets)
        with full_precision(*predictions, *targets) as tensors:
            p1, p2, z1, z2 = (unit(x) for x in tensors)  # [N, D]
            check_rows({"predictions": p1, "targets": z1})
            if self.stop_gradient:
                z1, z2 = z1.detach(), z2.detach()
            forth, terms_forth = negative_cosine(p1, z2)  # D(p1, z2)     [N]
            back, terms_back = negative_cosine(p2, z1)  # D(p2, z1)     [N]
            return (forth + back).mean() / 2, average(terms_forth, terms_back)

    def extra_repr(self) -> str:
        return f"stop_gradient={self.stop_gradient}"

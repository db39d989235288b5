"""BYOL: predict the slow copy's embedding of the other view."""

from __future__ import annotations

from torch import Tensor, nn

from compressl.objectives.common import (
    Pair,
    Terms,
    average,
    check_pairs,
    check_positive,
    check_rows,
    cosine,
    full_precision,
    unit,
)


def regression(prediction: Tensor, target: Tensor) -> tuple[Tensor, Terms]:
    """D = || yhat(v1) - sg[that(v2)] ||^2 for each image [N], of unit rows [N, D]; no gradient reaches the target.

    Returns:
        D [N], and the means over images of ``regression`` (D) and ``alignment`` (the cosine, 1 - D / 2).

    Source: Grill et al. 2020, arXiv:2006.07733, equation 2.

    >>> import torch
    >>> D, terms = regression(torch.eye(2), torch.eye(2).flip(0))
    >>> D, terms["alignment"]
    (tensor([2., 2.]), tensor(0.))
    """
    target = target.detach()  # sg
    distance = (prediction - target).square().sum(-1)  # 2 - 2 yhat^T that     [N]
    return distance, {
        "regression": distance.detach().mean(),
        "alignment": cosine(prediction.detach(), target).mean(),
    }


class BYOLLoss(nn.Module):
    """w_d || yhat(v1) - that(v2) ||^2, averaged over images and both directions.

    ``forward(predictions, targets)`` takes pairs (view 1, view 2) of raw [N, D] (normalised inside); the prediction of
    one view is regressed on the target of the other. No gradient reaches the targets. It returns ``(loss, terms)``:
    ``regression``, the unweighted squared distance, and ``alignment``, the mean cosine of prediction and target.

    Args:
        weight: w_d = kappa_d / 2, where kappa_d is the concentration of the decoder.

    Raises:
        UsageError: for a weight of 0 or less; in ``forward`` for mismatched shapes.

    Source: Grill et al. 2020, arXiv:2006.07733, equation 2; ``weight`` from the released code of Lee et al. 2021.

    >>> import torch
    >>> views = torch.eye(4, 8), torch.eye(4, 8)
    >>> loss, terms = BYOLLoss()(views, views)
    >>> loss, terms["alignment"]
    (tensor(0.), tensor(1.))
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        check_positive(weight=weight)
        self.weight = weight

    def forward(self, predictions: Pair, targets: Pair) -> tuple[Tensor, Terms]:
        check_pairs(predictions=predictions, targets=targets)
        with full_precision(*predictions, *targets) as tensors:
            y1, y2, t1, t2 = (unit(x) for x in tensors)  # yhat(v1), yhat(v2), that(v1), that(v2)     [N, D]
            check_rows({"predictions": y1, "targets": t1})
            forth, terms_forth = regression(y1, t2)  # D(v1 -> v2)     [N]
            back, terms_back = regression(y2, t1)  # D(v2 -> v1)     [N]
            return self.weight * (forth + back).mean() / 2, average(terms_forth, terms_back)

    def extra_repr(self) -> str:
        return f"weight={self.weight}"

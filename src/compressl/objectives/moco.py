"""MoCo v3: tell the slow copy's embedding of the other view from those of all other images."""

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
from compressl.objectives.simclr import contrastive_cross_entropy


class MoCoLoss(nn.Module):
    """-2 tau log softmax_i( q_i^T k_j / tau ), averaged over images and both directions.

    ``forward(queries, keys)`` takes pairs (view 1, view 2) of raw [N, D] (normalised inside), N >= 2; the queries of
    one view choose among the N keys of the other view alone, and no gradient reaches the keys. It returns
    ``(loss, terms)``: ``cross_entropy``, ``mutual_information_bound`` (log N - cross_entropy, at most I(query; key)),
    ``contrastive_entropy`` in nats, free of the factor 2 tau; ``contrastive_accuracy``; ``alignment``, the mean cosine
    of a query and its key.

    With the factor 2 tau the gradient at the query is 2 (sum_j softmax_ij k_j - k_i), free of 1 / tau: the learning
    rate need not follow the temperature.

    Args:
        temperature: tau (the paper: 0.2 for ViT; the official code for ResNet-50: 1).

    Raises:
        UsageError: for a temperature of 0 or less; in ``forward`` for N < 2 or mismatched shapes.

    Source: Chen, Xie and He 2021, arXiv:2104.02057, equation 1 and algorithm 1, which sums the directions (twice this
        loss).

    >>> import torch
    >>> views = torch.eye(4, 8), torch.eye(4, 8)
    >>> loss, terms = MoCoLoss(temperature=0.2)(views, views)
    >>> loss, terms["cross_entropy"], terms["alignment"]
    (tensor(0.0080), tensor(0.0200), tensor(1.))
    """

    def __init__(self, temperature: float = 0.2) -> None:
        super().__init__()
        check_positive(temperature=temperature)
        self.temperature = temperature

    def forward(self, queries: Pair, keys: Pair) -> tuple[Tensor, Terms]:
        check_pairs(queries=queries, keys=keys)
        with full_precision(*queries, *keys) as tensors:
            q1, q2, k1, k2 = (unit(x) for x in tensors)  # [N, D]
            check_rows({"queries": q1, "keys": k1}, at_least=2)
            forth, terms_forth = self._direction(q1, k2.detach())  # ctr(q1, k2)     [N]
            back, terms_back = self._direction(q2, k1.detach())  # ctr(q2, k1)     [N]
            return self.temperature * (forth + back).mean(), average(terms_forth, terms_back)  # 2 tau x the mean

    def _direction(self, q: Tensor, k: Tensor) -> tuple[Tensor, Terms]:
        cross_entropy, terms = contrastive_cross_entropy(q, q, k, 1 / self.temperature, double_batch=False)
        return cross_entropy, terms | {"alignment": cosine(q, k).detach().mean()}

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"

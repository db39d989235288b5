"""Weighted k-nearest-neighbour classification (Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric
Instance Discrimination", section 3.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 2**26  # cosines at a time: bounds the memory, and is where the product is fastest on a CPU


@torch.no_grad()
def nearest(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k most similar rows of the bank by cosine, exact; the product takes nearly all of the time.

    Args:
        bank, queries: features [M, F] and [N, F]. The cosine with a row of zeros is zero.

    Returns:
        cosines [N, k] in falling order, and rows of the bank [N, k]; min(k, M) of them.
    """
    bank = F.normalize(bank.float(), dim=1)
    cosines, rows = [], []
    for chunk in torch.split(queries, max(1, CHUNK // len(bank))):
        best = (F.normalize(chunk.float(), dim=1) @ bank.T).topk(min(k, len(bank)), dim=1)
        cosines.append(best.values)
        rows.append(best.indices)
    return torch.cat(cosines), torch.cat(rows)


@torch.no_grad()
def knn_predict(
    bank: Tensor, labels: Tensor, queries: Tensor, classes: int, *, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """The class of each query by the votes of its k neighbours, each with weight exp(cosine / temperature).

    Args:
        bank: features of labelled images [M, F].
        labels: their classes, int64 [M].
        queries: features [N, F].

    Returns:
        classes int64 [N].

    >>> bank = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> knn_predict(bank, torch.tensor([0, 0, 1]), torch.tensor([[0.1, 1.0]]), classes=2, k=3).tolist()
    [1]
    """
    cosines, rows = nearest(bank, queries, k)
    weights = ((cosines - cosines[:, :1]) / temperature).exp()  # relative to the nearest: cannot overflow
    votes = torch.zeros(len(queries), classes, device=queries.device)
    voted = labels.to(rows.device)[rows]
    for j in range(rows.shape[1]):  # one neighbour at a time: a GPU would add them in an order of its own
        votes.scatter_add_(1, voted[:, j : j + 1], weights[:, j : j + 1])
    return votes.argmax(1)

"""CISSL: read the image off one view, among all images of the batch, with the probe that will be used downstream."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from compressl.objectives.common import (
    Pair,
    Terms,
    check_pairs,
    check_positive,
    check_rows,
    cosine,
    full_precision,
    unit,
)


def image_cross_entropy(logits: Tensor) -> Tensor:
    """-[ log p(n|n) + log p(n'|n) ] / 2, p a softmax over all 2N columns, for each anchor [2N] in nats.

    Row n and row n' = (n + N) mod 2N are the two views of one image. The anchor's own column is a candidate and a
    target like its partner's: anchors and candidates come from two different heads, so it is no giveaway, and giving
    half of the mass to each is what asks for invariance. At least log 2; log 2N where all logits are alike.

    Args:
        logits: of anchors (rows) and candidates (columns), [2N, 2N].

    Source: Dubois et al. 2022, arXiv:2209.06235, and its released code.

    >>> image_cross_entropy(torch.zeros(6, 6))[0], math.log(6)
    (tensor(1.7918), 1.791759469228055)
    """
    images = len(logits) // 2
    own = logits.diagonal()  # l_nn     [2N]
    partner = torch.cat([logits.diagonal(images), logits.diagonal(-images)])  # l_nn'     [2N]
    return logits.logsumexp(1) - (own + partner) / 2


class CISSLLoss(nn.Module):
    """The cross-entropy of an image's two teacher embeddings given a student embedding, averaged over all views.

    ``forward(students, teachers)`` takes pairs (view 1, view 2) of raw [N, D] (normalised inside), N >= 2. Every
    student row is an anchor, every teacher row a candidate; the transposed loss is another. It returns ``(loss,
    terms)``: ``cross_entropy`` and ``mutual_information_bound`` in nats; ``contrastive_accuracy``, how often the
    anchor's best candidate is the other view of its image, its own view left out; and ``alignment``, the mean cosine of
    a student and the teacher of the other view.

    ``mutual_information_bound`` is log 2N - cross_entropy, a lower bound on I(student of a view; both teachers of its
    image). With p_n + p_n' as the probability of the image, which is a softmax over N images whose logits are the
    logsumexp of two, InfoNCE (van den Oord et al. 2018, arXiv:1807.03748) bounds it from below by
    log N + E log(p_n + p_n'), and log((p_n + p_n') / 2) >= (log p_n + log p_n') / 2. It reaches log N at most, where
    both halves of the target are met (our derivation).

    Args:
        temperature: tau of the softmax (0.07 on TinyImageNet, 0.1 on ImageNet).

    Raises:
        UsageError: for a temperature of 0 or less; in ``forward`` for N < 2 or mismatched shapes.

    Source: Dubois et al. 2022, arXiv:2209.06235, and its released code. No stop-gradient: both heads learn.

    >>> views = torch.eye(4, 8), torch.eye(4, 8)
    >>> loss, terms = CISSLLoss()(views, views)
    >>> loss, terms["mutual_information_bound"]  # log 2 and log 4
    (tensor(0.6931), tensor(1.3863))
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        check_positive(temperature=temperature)
        self.temperature = temperature

    def forward(self, students: Pair, teachers: Pair) -> tuple[Tensor, Terms]:
        check_pairs(students=students, teachers=teachers)
        check_rows({"students": students[0], "teachers": teachers[0]}, at_least=2)
        with full_precision(*students, *teachers) as (s1, s2, t1, t2):
            v, u = unit(torch.cat([s1, s2])), unit(torch.cat([t1, t2]))  # [2N, D]
            logits = v @ u.T / self.temperature  # l_nm = v_n^T u_m / tau     [2N, 2N]
            loss = image_cross_entropy(logits).mean()

            value, images = loss.detach(), len(s1)
            partner = torch.arange(2 * images, device=v.device).roll(images)  # n'     [2N]
            best = logits.detach().clone().fill_diagonal_(-torch.inf).argmax(1)  # [2N]
            return loss, {
                "cross_entropy": value,
                "mutual_information_bound": math.log(2 * images) - value,
                "contrastive_accuracy": (best == partner).to(value.dtype).mean(),
                "alignment": cosine(v, u[partner]).detach().mean(),
            }

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"

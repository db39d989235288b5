"""SwAV: predict, from one crop of an image, which prototypes another crop of it is assigned to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compressl.errors import UsageError
from compressl.objectives.common import Pair, Terms, check_count, check_positive, check_rows, full_precision


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Soft assignments of images to prototypes that use all prototypes alike, [N, K] -> rows that sum to 1, [N, K].

    Alternately every prototype gets the same total weight and every image the weight 1, starting from
    exp(scores / epsilon); an image's row is the last to be normalised. In logarithms, so that nothing overflows and no
    prototype is left without weight. No gradient.

    Args:
        scores: cosines of embeddings and prototypes of the whole (global) batch, [N, K].
        epsilon: the larger, the more even the assignments.
        iterations: 3 in the paper; the columns sum to N / K in the limit.

    Source: Caron et al. 2020, arXiv:2006.09882, equations 3 to 5, and its official code.

    >>> sinkhorn(torch.eye(2), epsilon=1.0)
    tensor([[0.7311, 0.2689],
            [0.2689, 0.7311]])
    """
    check_positive(epsilon=epsilon)
    check_count(iterations=iterations)
    with full_precision(scores) as (scores,):
        log_q = scores / epsilon  # log Q, not normalised     [N, K]
        for _ in range(iterations):
            log_q = log_q - log_q.logsumexp(0, keepdim=True)  # of each prototype: 1 in total (K and B cancel)
            log_q = log_q - log_q.logsumexp(1, keepdim=True)  # of each image: 1 in total
        return log_q.exp()


class SwAVLoss(nn.Module):
    """-sum_k q_k log p_k, averaged over images, over the two views that give codes q, and over all other crops p.

    ``forward(scores, queue_scores=None)`` takes a list of [N, K], the cosines of embeddings and prototypes: the two
    views first, then any small crops. Codes are computed from the two views; each is predicted from every crop but its
    own. ``queue_scores``, a pair of [Q, K], are the scores of earlier images' embeddings of each view: they take part
    in the assignment and are then left out. It returns ``(loss, terms)`` in nats: ``cross_entropy``, the loss;
    ``assignment_entropy``, the mean over images of the entropy of their codes; ``marginal_entropy``, the entropy of the
    mean code, at most log K. No gradient reaches the codes.

    Args:
        temperature: tau of the softmax.
        epsilon: of the assignment, see :func:`sinkhorn`.
        iterations: of the assignment.

    Raises:
        UsageError: for a temperature or epsilon of 0 or less, fewer than 1 iteration; in ``forward`` for fewer than two
            views, mismatched shapes, a queue that is no pair, or one image alone.

    Source: Caron et al. 2020, arXiv:2006.09882, equations 1 and 2, section 3.2 (multi-crop), and its official code.

    >>> loss, terms = SwAVLoss()([torch.eye(4), torch.eye(4)])
    >>> loss, terms["marginal_entropy"]
    (tensor(0.0001), tensor(1.3863))
    """

    def __init__(self, temperature: float = 0.1, epsilon: float = 0.05, iterations: int = 3) -> None:
        super().__init__()
        check_positive(temperature=temperature, epsilon=epsilon)
        check_count(iterations=iterations)
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations

    def forward(self, scores: Sequence[Tensor], queue_scores: Pair | None = None) -> tuple[Tensor, Terms]:
        _check(scores, queue_scores)
        with full_precision(*scores) as crops:
            images = len(crops[0])
            log_p = [(crop / self.temperature).log_softmax(1) for crop in crops]  # log p_v     [N, K]
            loss, codes = crops[0].new_zeros(()), []
            for s in (0, 1):  # the views that give codes
                batch = crops[s].detach()
                whole = batch if queue_scores is None else torch.cat([queue_scores[s].detach().to(batch.dtype), batch])
                q = sinkhorn(whole, self.epsilon, self.iterations)[-images:]  # q_s     [N, K]
                swapped = [(q * log_p[v]).sum(1).mean() for v in range(len(crops)) if v != s]  # -l(z_v, q_s)
                loss = loss - torch.stack(swapped).mean()
                codes.append(q)
            loss, q = loss / 2, torch.cat(codes)  # q of both views     [2N, K]
            return loss, {
                "cross_entropy": loss.detach(),
                "assignment_entropy": torch.special.entr(q).sum(1).mean(),
                "marginal_entropy": torch.special.entr(q.mean(0)).sum(),
            }

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, epsilon={self.epsilon}, iterations={self.iterations}"


def _check(scores: Tensor | Sequence[Tensor], queue_scores: Pair | None) -> None:
    if isinstance(scores, Tensor) or len(scores) < 2:
        raise UsageError(
            "The scores are not those of two views or more.", "Give a list of [images, prototypes]: two views first."
        )
    check_rows({f"scores[{crop}]": x for crop, x in enumerate(scores)})
    images, prototypes = scores[0].shape
    queued = 0
    if queue_scores is not None:
        if isinstance(queue_scores, Tensor) or len(queue_scores) != 2:
            raise UsageError(
                "queue_scores is not a pair.", "Give it as (view 1, view 2), each [embeddings, prototypes]."
            )
        check_rows({f"queue_scores[{view}]": x for view, x in enumerate(queue_scores)})
        queued = queue_scores[0].shape[0]
        if queue_scores[0].shape[1] != prototypes:
            raise UsageError(
                f"The queue is scored against {queue_scores[0].shape[1]} prototypes, the batch against {prototypes}.",
                "Score both against the same prototypes.",
            )
    if images + queued < 2:
        raise UsageError(
            "There is one image to assign.", "Give at least 2: an image alone is spread evenly over all prototypes."
        )

"""SimCLR: tell the other view of an image from every other view in the batch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressl.objectives.common import Terms, average, check_positive, check_rows, cosine, full_precision, unit


def contrastive_cross_entropy(
    z: Tensor, own: Tensor, other: Tensor, kappa: float, *, double_batch: bool = True
) -> tuple[Tensor, Terms]:
    """-log c(y_i|z_i), a softmax of kappa cos over the candidates for the other view, for each image [N] in nats.

    The candidates of z_i are all K second views ("other") and, with the double batch, the K - 1 first views ("own") of
    other images; its own first view is left out.

    Args:
        z: codes, unit rows [N, D].
        own: embeddings of the view that z encodes, unit rows [N, D].
        other: embeddings of the other view, unit rows [N, D].
        kappa: concentration of the decoder, 1 / temperature.
        double_batch: whether ``own`` gives negatives too.

    Returns:
        The cross-entropy [N], and the means over images of: ``cross_entropy``; ``mutual_information_bound``,
        log(candidates) - cross_entropy <= I(Y;Z); ``contrastive_entropy``, of the softmax; ``contrastive_accuracy``,
        how often no other candidate is as near as the right one.

    Source: Chen et al. 2020, arXiv:2002.05709, equation 1; the released code of Lee et al. 2021.

    >>> z = torch.eye(3)
    >>> loss, terms = contrastive_cross_entropy(z, z, z, kappa=10.0)
    >>> loss, terms["contrastive_accuracy"]
    (tensor([0.0002, 0.0002, 0.0002]), tensor(1.))
    """
    images = len(z)
    logits = kappa * z @ other.T  # l_ik = kappa m_k^T z_i     [N, N]
    if double_batch:
        itself = torch.eye(images, dtype=torch.bool, device=z.device)
        negatives = (kappa * z @ own.T).masked_fill(itself, -torch.inf)  # l'_ik, k != i     [N, N]
        logits = torch.cat([logits, negatives], dim=1)  # [N, 2N]
    target = torch.arange(images, device=z.device)  # positive: l_ii
    cross_entropy = F.cross_entropy(logits, target, reduction="none")  # logsumexp_k l_ik - l_ii     [N]

    logits = logits.detach()
    log_c = logits.log_softmax(1)
    value = cross_entropy.detach().mean()
    own = target[:, None]
    rival = logits.scatter(1, own, -math.inf).amax(1)
    # binary codes have rivals that are just as near, which rounding would take for nearer or farther
    right = logits.gather(1, own)[:, 0] > rival + 1e-6 * kappa
    return cross_entropy, {
        "cross_entropy": value,
        "mutual_information_bound": math.log(candidates(images, double_batch)) - value,
        "contrastive_entropy": torch.special.entr(log_c.exp()).sum(1).mean(),
        "contrastive_accuracy": right.to(value.dtype).mean(),
    }


def candidates(images: int, double_batch: bool = True) -> int:
    """How many views the decoder chooses from: 2K - 1, or K without the double batch."""
    return 2 * images - 1 if double_batch else images


class SimCLRLoss(nn.Module):
    """-log c(y_i|x_i), averaged over images and both directions; NT-Xent.

    ``forward(a, b)`` takes the projections of the two views, raw [N, D] (normalised inside), N >= 2, and returns
    ``(loss, terms)``: ``cross_entropy``, ``mutual_information_bound``, ``contrastive_entropy`` in nats,
    ``contrastive_accuracy``, and ``alignment``, the mean cosine of the two views.

    Args:
        temperature: tau of the softmax.
        double_batch: whether the first views of other images are negatives too.

    Raises:
        UsageError: for a temperature of 0 or less; in ``forward`` for N < 2 or mismatched shapes.

    Source: Chen et al. 2020, arXiv:2002.05709, equation 1 and algorithm 1.

    >>> loss, terms = SimCLRLoss(temperature=0.1)(torch.eye(4, 8), torch.eye(4, 8))
    >>> loss, terms["alignment"]
    (tensor(0.0003), tensor(1.))
    """

    def __init__(self, temperature: float = 0.1, *, double_batch: bool = True) -> None:
        super().__init__()
        check_positive(temperature=temperature)
        self.temperature, self.double_batch = temperature, double_batch

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Terms]:
        check_rows({"a": a, "b": b}, at_least=2)
        with full_precision(a, b) as (a, b):
            mu, m = unit(a), unit(b)  # mu_i, m_i     [N, D]
            kappa, double = 1 / self.temperature, self.double_batch
            forth, terms_forth = contrastive_cross_entropy(mu, mu, m, kappa, double_batch=double)  # -log c(y|x)     [N]
            back, terms_back = contrastive_cross_entropy(m, m, mu, kappa, double_batch=double)  # -log c(x|y)     [N]
            terms = average(terms_forth, terms_back) | {"alignment": cosine(mu, m).detach().mean()}
            return (forth + back).mean() / 2, terms

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, double_batch={self.double_batch}"

"""MVEB: views that agree, spread by the gradient of their entropy; no negatives, no predictor.

Of a view, z_1 should keep what the other view tells and nothing else: maximise I(z_1;v_2) - beta I(z_1;v_1|v_2). Up to
constants (a deterministic encoder, seen through fixed infinitesimal noise) this is H(z_1) - (1+beta) H(z_1|v_2). With
q(z_1|v_2) = vMF(z_2, kappa), H(z_1|v_2) <= -kappa E[z_1^T z_2] - log C(kappa), so what is left to maximise is

    E[z_1^T z_2] + lambda H(z_1),        lambda = 1 / ((1+beta) kappa):

the more compression, the smaller lambda. The objective is the paper's; these steps to it, and this reading of lambda,
are ours. The entropy is never computed: its gradient is -E[s^T dz], with the score s from
:func:`compressl.objectives.stein.stein_score`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compressl.errors import UsageError
from compressl.objectives.common import (
    Pair,
    Terms,
    check_count,
    check_not_negative,
    check_pairs,
    check_rows,
    cosine,
    full_precision,
    unit,
)
from compressl.objectives.stein import Estimator, check_score, stein_score, tangent
from compressl.objectives.von_mises_fisher import von_mises_fisher

KAPPA = 10.0  # concentration of the kernel of the entropy estimate, the usual one of contrastive losses


def mveb(z: Tensor, t: Tensor, S: Tensor, entropy_weight: float) -> tuple[Tensor, Terms]:
    """-(1/V) sum_v a_v - (lambda/V) sum_v h_v, with a_v = mean_i z_vi^T t_vi and h_v = mean_i -sg[S_vi]^T z_vi.

    Args:
        z: online embeddings of V crops, unit rows [V, N, D].
        t: what each should agree with, [V, N, D]; see :func:`positives`.
        S: scores at z, [V, N, D]; no gradient reaches them.
        entropy_weight: lambda.

    Returns:
        The loss, and ``alignment``, ``entropy_surrogate``, ``score_norm`` as in :class:`MVEBLoss`.

    Source: Wen et al. 2024, arXiv:2403.19078, and its released code.

    >>> z = torch.eye(2, 4)[None]
    >>> loss, terms = mveb(z, z, -z, entropy_weight=0.01)
    >>> loss, terms["alignment"], terms["entropy_surrogate"]
    (tensor(-1.0100), tensor(1.), tensor(1.))
    """
    S = S.detach()
    a = cosine(z, t).mean()  # (1/V) sum_v a_v
    h = -cosine(S, z).mean()  # (1/V) sum_v h_v, whose gradient is that of the entropy: -S/N in each row
    norm = tangent(S, z.detach()).square().sum(-1).mean().sqrt()
    terms = {"alignment": a.detach(), "entropy_surrogate": h.detach(), "score_norm": norm}
    return -a - entropy_weight * h, terms


def positives(targets: Pair, crops: int) -> Tensor:
    """What each crop should agree with, [V, N, D]: the two views with each other's target, a small crop with both.

    The average of two unit rows is not normalised again: z^T (t_0 + t_1) / 2 is the mean of the two cosines.
    """
    t0, t1 = targets
    return torch.stack([t1, t0, *[(t0 + t1) / 2] * (crops - 2)])


def kernel_entropy(C: Tensor, dim: int, kappa: float = KAPPA) -> Tensor:
    """-mean_i log[ 1/(N-1) sum_{j != i} vMF(z_i; z_j, kappa) ] in nats, of cosines C_ij = z_i^T z_j.

    ``C`` [..., N, N] -> [...]; ``dim`` is that of the unit rows z_i.

    The leave-one-out kernel estimate of the differential entropy on the sphere. Its expectation lies above the entropy
    by the mean divergence of the estimated density, so it is an upper bound up to the draw of the batch.

    >>> kernel_entropy(torch.eye(3), dim=3)  # log C_3(10) = -9.5353, and no neighbours
    tensor(9.5353)
    """
    return -von_mises_fisher(dim, kappa).log_normalizer - _mean_log_kernel(C, kappa).mean(-1)


def uniformity(C: Tensor, t: float = 2.0) -> Tensor:
    """log mean_{i != j} exp(-t ||z_i - z_j||^2), of cosines C_ij = z_i^T z_j; smaller is more uniform.

    ``C`` [..., N, N] of unit rows z_i -> [...].

    Source: Wang and Isola 2020, arXiv:2005.10242, section 4.1.2.

    >>> uniformity(torch.eye(3))
    tensor(-4.)
    """
    rows = _mean_log_kernel(C, 2 * t)  # log mean_{j != i} exp(2t C_ij)     [..., N]
    return rows.logsumexp(-1) - math.log(C.shape[-1]) - 2 * t


def _mean_log_kernel(C: Tensor, kappa: float) -> Tensor:
    """log mean_{j != i} exp(kappa C_ij), [..., N, N] -> [..., N]."""
    itself = torch.eye(C.shape[-1], dtype=torch.bool, device=C.device)
    return (kappa * C).masked_fill(itself, -torch.inf).logsumexp(-1) - math.log(C.shape[-1] - 1)


class MVEBLoss(nn.Module):
    """-E[z_1^T z_2] - lambda H(z), averaged over images and crops, the entropy by its gradient.

    ``forward(online, targets)`` takes the embeddings of V >= 2 crops, the two views first, and the targets of the two
    views, all raw [N, D] (normalised inside). Gradient reaches whatever carries it: pass detached targets of a slow
    copy, or ``online[:2]`` again for a Siamese network. It returns ``(loss, terms)``:

    * ``alignment``, the mean cosine of crops and targets;
    * ``entropy_surrogate``: *not* an entropy, it has the gradient of one. Its value says nothing: it is the radial part
      of the score (so 0 with ``sphere``), which the normalisation of the embeddings takes out of the gradient;
    * ``score_norm``, the root mean square of the tangential score: lambda times this pulls against the alignment's
      gradient of at most 1. Uniform embeddings, whose true score is 0, have 12 to 26 in groups of 128 (measured): the
      noise of the estimate. It explodes near a collapse;
    * ``entropy_estimate``, of the two views over the whole batch in nats: :func:`kernel_entropy` with concentration 10;
    * ``uniformity``, of the two views: :func:`uniformity`.

    ``group_size`` images make one estimate of the score; the batch is cut into consecutive groups and averaged. It is
    a hyperparameter of its own: at one lambda, the estimated score of uniform embeddings in 2048 dimensions is 35 times
    as strong in groups of 2048 as in groups of 128 (measured). The paper's 128 is what a device held of 4096 images.

    Args:
        entropy_weight: lambda = 1 / ((1+beta) kappa), see the module.
        ridge: eta of the score estimate.
        min_bandwidth: the smallest tau of its kernel.
        group_size: images of one estimate.
        estimator: ``released`` or ``sphere``, see :func:`compressl.objectives.stein.stein_score`.

    Raises:
        UsageError: for a negative weight, a ridge or bandwidth of 0 or less, an unknown estimator, a group of fewer
            than 2; in ``forward`` for fewer than two crops, mismatched shapes, fewer images than a group or a number of
            images that is no multiple of it.

    Source: Wen et al. 2024, arXiv:2403.19078, and its released code; groups that do not depend on the number of
    processes, and ``sphere``, are ours.

    >>> views = [torch.eye(4, 8), torch.eye(4, 8)]
    >>> loss, terms = MVEBLoss(group_size=4)(views, (views[0], views[1]))
    >>> loss, terms["alignment"], terms["uniformity"]
    (tensor(-1.0273), tensor(1.), tensor(-4.))
    """

    def __init__(
        self,
        entropy_weight: float = 0.01,
        ridge: float = 0.01,
        min_bandwidth: float = 0.1,
        group_size: int = 128,
        estimator: Estimator = "released",
    ) -> None:
        super().__init__()
        check_not_negative(entropy_weight=entropy_weight)
        check_score(ridge, min_bandwidth, estimator)
        check_count(2, group_size=group_size)  # a score is estimated from a sample
        self.entropy_weight, self.ridge, self.min_bandwidth = entropy_weight, ridge, min_bandwidth
        self.group_size, self.estimator = group_size, estimator

    def forward(self, online: Sequence[Tensor], targets: Pair) -> tuple[Tensor, Terms]:
        if len(online) < 2:
            raise UsageError(f"online holds {len(online)} crop(s).", "Give at least the two views.")
        check_pairs(targets=targets)
        check_rows({f"online[{v}]": x for v, x in enumerate(online)} | {"targets[0]": targets[0]})
        self._check_groups(len(online[0]))
        with full_precision(*online, *targets) as tensors:
            *crops, t0, t1 = (unit(x) for x in tensors)
            z = torch.stack(crops)  # z_v     [V, N, D]
            groups = z.detach().view(len(z), -1, self.group_size, z.shape[2])  # [V, N / n, n, D]
            S = stein_score(groups, self.ridge, self.min_bandwidth, self.estimator).flatten(1, 2)  # [V, N, D]
            loss, terms = mveb(z, positives((t0, t1), len(crops)), S, self.entropy_weight)
            views = z[:2].detach()  # [2, N, D]
            C = views @ views.mT  # cosines     [2, N, N]
            return loss, terms | {
                "entropy_estimate": kernel_entropy(C, z.shape[2]).mean(),
                "uniformity": uniformity(C).mean(),
            }

    def _check_groups(self, images: int) -> None:
        n = self.group_size
        if images < 2:
            raise UsageError(f"The batch holds {images} image(s).", "Give at least 2: the entropy is of a sample.")
        if images < n:
            raise UsageError(
                f"The batch holds {images} images, fewer than a group of {n}.",
                f"Give a batch of at least {n}, or a group_size of {images} or less.",
            )
        if images % n:
            below = images - images % n
            divisor = next(k for k in range(n, 0, -1) if images % k == 0)
            other = f", or a group_size of {divisor}" if divisor > 1 else ""
            raise UsageError(
                f"The batch holds {images} images, which groups of {n} do not divide.",
                f"Give a batch of {below} or {below + n}{other}.",
            )

    def extra_repr(self) -> str:
        return ", ".join(
            f"{name}={getattr(self, name)}"
            for name in ("entropy_weight", "ridge", "min_bandwidth", "group_size", "estimator")
        )

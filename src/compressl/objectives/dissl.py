"""DISSL: distil balanced, invariant codes of a teacher head into the probe that will be used downstream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce as fold
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from compressl.errors import UsageError
from compressl.objectives.common import (
    Terms,
    check_count,
    check_not_negative,
    check_positive,
    check_rows,
    full_precision,
    identity,
)


def marginal_entropy(m: Tensor) -> Tensor:
    """H = -sum_c m(c) log m(c), a mean over views, [V, C] -> [] in nats.

    The floor inside the logarithm lets a cluster that no image uses, m = 0, add nothing to value and gradient.

    >>> marginal_entropy(torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]))  # (log 2 + 0) / 2
    tensor(0.3466)
    """
    return -(m * m.clamp_min(torch.finfo(m.dtype).tiny).log()).sum(-1).mean()


def code_statistics(
    teacher_logits: Sequence[Tensor],
    student_logits: Sequence[Tensor],
    teacher_temperature: float,
    student_temperature: float,
    chunk: int = 2**20,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the loss needs of codes t_i = softmax(a_i / tau_t), i <= V_t, and predictions s_v = softmax(b_v / tau_s).

    Beyond the logits and their gradients it holds, at any time, a few tables of ``chunk`` numbers, for it reads the
    logits row by row, once forward and once backward. It computes in float32 (float64 stays float64); a second
    derivative is not to be had.

    Args:
        teacher_logits: a_i, the teacher views, each [N, C].
        student_logits: b_v, the same views first, each [N, C].
        chunk: how many logits of each table are taken at a time (at least one row).

    Returns:
        The marginals m_i(c) = mean_n t_i [V_t, C], and in nats: CE_inv, the mean over ordered pairs i != j of
        E[ -sum_c t_i log t_j ]; CE_dist, the mean over i != v of E[ -sum_c t_i log s_v ]; H(M|z), the mean over i of
        E[ -sum_c t_i log t_i ], without gradient.

    >>> m, invariance, distillation, conditional = code_statistics([torch.eye(3)] * 2, [torch.eye(3)] * 2, 0.5, 1.0)
    >>> m.shape, bool(invariance == conditional), bool(distillation > conditional)
    (torch.Size([2, 3]), True, True)
    """
    numbers = len(teacher_logits), teacher_temperature, student_temperature, chunk
    out = _CodeStatistics.apply(*numbers, *teacher_logits, *student_logits)  # type: ignore[no-untyped-call]
    return cast(tuple[Tensor, Tensor, Tensor, Tensor], out)


class _CodeStatistics(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, teachers: int, tau_t: float, tau_s: float, chunk: int, *logits: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.save_for_backward(*logits)
        ctx.teachers, ctx.tau_t, ctx.tau_s, ctx.chunk = teachers, tau_t, tau_s, chunk
        (images, clusters), V_t, V = logits[0].shape, teachers, len(logits) - teachers
        m = torch.zeros(V_t, clusters, dtype=_precision(logits), device=logits[0].device)
        invariance, distillation, conditional = m.new_zeros(()), m.new_zeros(()), m.new_zeros(())
        for rows in _chunks(images, clusters, chunk):
            log_t, log_s = _log_probabilities(logits, rows, teachers, tau_t, tau_s)  # [n, C] each
            for i in range(V_t):
                t = log_t[i].exp()  # t_i     [n, C]
                m[i] += t.sum(0)
                conditional -= (t * log_t[i]).sum()
                invariance -= (t * _others(log_t, i)).sum()  # -sum_{j != i} t_i log t_j
                distillation -= (t * _others(log_s, i)).sum()  # -sum_{v != i} t_i log s_v
        ctx.mark_non_differentiable(conditional)
        m /= images
        invariance /= images * V_t * (V_t - 1)
        distillation /= images * V_t * (V - 1)
        conditional /= images * V_t
        return m, invariance, distillation, conditional

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_m: Tensor, d_invariance: Tensor, d_distillation: Tensor, _: Tensor
    ) -> tuple[Tensor | None, ...]:
        logits: tuple[Tensor, ...] = ctx.saved_tensors
        (images, clusters), V_t, V = logits[0].shape, ctx.teachers, len(logits) - ctx.teachers
        d_m = d_m / images  # of each image's share of m_i     [V_t, C]
        w_inv = d_invariance / (images * V_t * (V_t - 1))  # of each -t_i log t_j
        w_dist = d_distillation / (images * V_t * (V - 1))  # of each -t_i log s_v
        gradients = [torch.empty_like(x) for x in logits]
        for rows in _chunks(images, clusters, ctx.chunk):
            log_t, log_s = _log_probabilities(logits, rows, V_t, ctx.tau_t, ctx.tau_s)
            t, s = [x.exp() for x in log_t], [x.exp() for x in log_s]
            for i in range(V_t):
                # dL/dt_i, through the softmax; then sum_{j != i} dL/d(log t_i), which t_j weighs
                d_t = d_m[i] - w_inv * _others(log_t, i) - w_dist * _others(log_s, i)
                d_a = t[i] * (d_t - (t[i] * d_t).sum(1, keepdim=True)) + w_inv * ((V_t - 1) * t[i] - _others(t, i))
                gradients[i][rows] = d_a / ctx.tau_t
            for v in range(V):
                d_b = w_dist * ((V_t - (v < V_t)) * s[v] - _others(t, v))  # sum_{i != v} (s_v - t_i)
                gradients[V_t + v][rows] = d_b / ctx.tau_s
        return None, None, None, None, *gradients


def _precision(logits: Sequence[Tensor]) -> torch.dtype:
    return fold(torch.promote_types, (x.dtype for x in logits), torch.float32)


def _chunks(images: int, clusters: int, chunk: int) -> list[slice]:
    rows = max(1, chunk // clusters)
    return [slice(start, start + rows) for start in range(0, images, rows)]


def _log_probabilities(
    logits: Sequence[Tensor], rows: slice, teachers: int, tau_t: float, tau_s: float
) -> tuple[list[Tensor], list[Tensor]]:
    """log t_i and log s_v of some images; cast before the division, as in the released code."""
    dtype = _precision(logits)
    log_t = [(a[rows].to(dtype) / tau_t).log_softmax(1) for a in logits[:teachers]]
    log_s = [(b[rows].to(dtype) / tau_s).log_softmax(1) for b in logits[teachers:]]
    return log_t, log_s


def _others(x: Sequence[Tensor], i: int) -> Tensor:
    """The sum of all but the i-th."""
    return fold(torch.add, (value for j, value in enumerate(x) if j != i))


class DISSLLoss(nn.Module):
    """CE_dist - lambda H + beta CE_inv: predict the code of another view; keep codes diverse; keep them invariant.

    ``forward(teacher_logits, student_logits)`` takes V_t >= 2 tables of raw logits [N, C] and V >= V_t, of which the
    first are of the teacher's views and the others of small crops; N >= 2 images, C >= 2 clusters. With
    t_i = softmax(a_i / tau_t), s_v = softmax(b_v / tau_s) and H averaged over the teacher views (one marginal each),

        L = mean_{i!=v} E[ -sum_c t_i log s_v ] - lambda mean_i H[ E t_i ] + beta mean_{i!=j} E[ -sum_c t_i log t_j ]
          = -(1 + beta) I(M;z) - (lambda - 1 - beta) H(M) + KL_dist + beta KL_inv,

    where pairs of the same view are left out. Nothing is detached: the teacher learns from all three.

    It returns ``(loss, terms)``, all in nats: ``marginal_entropy`` H(M); ``conditional_entropy`` H(M|z);
    ``mutual_information``, their difference; ``invariance_divergence``, KL_inv = E KL(t_i || t_j);
    ``distillation_divergence``, KL_dist = E KL(t_i || s_v), i != v (the released code logs it of one and the same view,
    i = v, which the loss does not contain); ``cross_entropy_invariance`` and ``cross_entropy_distillation``.

    H(M) is at most log C, and at most log N once each image has a code of its own: with C far above N, an image shares
    its cluster with no other of its batch. Codes that are all uniform give (1 + beta - lambda) log C, distinct hard
    ones -lambda log N, and 0 is one cluster for all: a collapse.

    Args:
        entropy_weight: lambda. Above 1 + beta the drift of all codes towards one cluster is damped at the uniform start
            (our second-order expansion); below it grows, and a collapse is to be expected. Not refused here: a schedule
            may pass through, and lambda = beta = 0 is distillation alone.
        invariance_weight: beta (0.8 on TinyImageNet, 0.6 on ImageNet).
        teacher_temperature: tau_t.
        student_temperature: tau_s.
        reduce: applied to the marginals [V_t, C]. Where each process holds its own images, their mean over processes,
            with gradient; the loss of all is then the mean of the processes' losses. Never the logits.
        chunk: how many logits of each table are taken at a time; the memory beyond logits and gradients is a few such
            tables, and the values do not depend on it.

    Raises:
        UsageError: for a negative weight, a temperature of 0 or less, a chunk below 1; in ``forward`` for fewer than
            two teacher views, fewer student than teacher views, mismatched shapes, N < 2 or C < 2.

    Source: Dubois et al. 2022, arXiv:2209.06235, and its released code.

    >>> codes = [50 * torch.eye(4, 8), 50 * torch.eye(4, 8)]
    >>> loss, terms = DISSLLoss()(codes, codes)
    >>> loss, terms["marginal_entropy"]  # -2.3 log 4 and log 4
    (tensor(-3.1885), tensor(1.3863))
    """

    def __init__(
        self,
        entropy_weight: float = 2.3,
        invariance_weight: float = 0.8,
        teacher_temperature: float = 0.5,
        student_temperature: float = 1.0,
        *,
        reduce: Callable[[Tensor], Tensor] = identity,
        chunk: int = 2**20,
    ) -> None:
        super().__init__()
        check_not_negative(entropy_weight=entropy_weight, invariance_weight=invariance_weight)
        check_positive(teacher_temperature=teacher_temperature, student_temperature=student_temperature)
        check_count(chunk=chunk)
        self.entropy_weight: float | Tensor = entropy_weight  # schedules and a multiplier may change both
        self.invariance_weight: float | Tensor = invariance_weight
        self.teacher_temperature, self.student_temperature = teacher_temperature, student_temperature
        self.reduce, self.chunk = reduce, chunk

    def forward(self, teacher_logits: Sequence[Tensor], student_logits: Sequence[Tensor]) -> tuple[Tensor, Terms]:
        _check(teacher_logits, student_logits)
        m, invariance, distillation, conditional = code_statistics(
            teacher_logits, student_logits, self.teacher_temperature, self.student_temperature, self.chunk
        )
        with full_precision(self.reduce(m), invariance) as (m, invariance):
            entropy = marginal_entropy(m)  # H
            loss = distillation - self.entropy_weight * entropy + self.invariance_weight * invariance
        H, CE_inv, CE_dist = entropy.detach(), invariance.detach(), distillation.detach()
        return loss, {
            "marginal_entropy": H,
            "conditional_entropy": conditional,
            "mutual_information": H - conditional,
            "invariance_divergence": CE_inv - conditional,
            "distillation_divergence": CE_dist - conditional,
            "cross_entropy_invariance": CE_inv,
            "cross_entropy_distillation": CE_dist,
        }

    def extra_repr(self) -> str:
        names = "entropy_weight", "invariance_weight", "teacher_temperature", "student_temperature", "chunk"
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


def _check(teacher_logits: Sequence[Tensor], student_logits: Sequence[Tensor]) -> None:
    if not 2 <= len(teacher_logits) <= len(student_logits):
        raise UsageError(
            f"There are {len(teacher_logits)} views of the teacher and {len(student_logits)} of the student.",
            "Give at least two of the teacher, and the same ones first of the student: lists of [images, clusters].",
        )
    named = {f"teacher_logits[{i}]": a for i, a in enumerate(teacher_logits)}
    named |= {f"student_logits[{v}]": b for v, b in enumerate(student_logits)}
    check_rows(named, at_least=2)
    if teacher_logits[0].shape[1] < 2:
        raise UsageError("The logits are of 1 cluster.", "Give logits of at least 2.")

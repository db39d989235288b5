"""DINO: predict, from any crop of an image, the centred and sharpened output of a slow copy for another crop of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from compressl.errors import UsageError
from compressl.objectives.common import Terms, check_count, check_positive, check_rows, full_precision, identity


def teacher_probabilities(output: Tensor, center: Tensor, temperature: float) -> Tensor:
    """P_t = softmax((g_t - c) / tau_t) for each image, [N, K] -> [N, K]; no gradient.

    Source: Caron et al. 2021, arXiv:2104.14294, equation 1 and algorithm 1.

    >>> teacher_probabilities(torch.tensor([[1.0, 0.0]]), torch.tensor([1.0, 0.0]), 0.04)
    tensor([[0.5000, 0.5000]])
    """
    return ((output.detach() - center) / temperature).softmax(1)


class DINOLoss(nn.Module):
    """-sum_k P_t log P_s, averaged over images and over the pairs of a teacher's view and another of the student's.

    ``forward(teacher_outputs, student_outputs)`` takes lists of logits [N, K]: the teacher's of the two views, and the
    student's of the same two views and then of any small crops. A view is never compared with itself. No gradient
    reaches the teacher. It returns ``(loss, terms)`` in nats: ``cross_entropy``, the loss; ``teacher_entropy``, the
    mean entropy of P_t; ``divergence``, KL(P_t || P_s), their difference; ``marginal_entropy``, the entropy of the mean
    P_t, log K where all outputs are used alike. The collapses that centre and sharpening work against show here: a
    teacher_entropy of log K (one even output for all), or a marginal_entropy of 0 (one output wins for all).

    The loss uses the centre as it was before this batch. In training mode, and once a call, the centre then moves
    towards the mean teacher output of the batch over both views: c <- m c + (1 - m) mean g_t.

    Args:
        dim: K, the number of outputs.
        student_temperature: tau_s.
        teacher_temperature: tau_t, an attribute that a schedule may change.
        center_momentum: m.
        reduce: mean over processes, for a batch that is spread over several: of the batch's mean output and mean P_t.
            The logits themselves need not be gathered. The loss is then that of this process's images.

    Attributes:
        center: c, a buffer [K].

    Raises:
        UsageError: for temperatures of 0 or less, a momentum outside [0, 1], fewer than one output; in ``forward`` for
            anything but two teacher's views, fewer than two of the student's, or mismatched shapes.

    Source: Caron et al. 2021, arXiv:2104.14294, equations 1 to 4, algorithm 1, and its official code.

    >>> objective = DINOLoss(dim=4)
    >>> loss, terms = objective([torch.eye(4), torch.eye(4)], [torch.eye(4), torch.eye(4)])
    >>> loss, terms["marginal_entropy"], objective.center
    (tensor(0.0001), tensor(1.3863), tensor([0.0250, 0.0250, 0.0250, 0.0250]))
    """

    center: Tensor

    def __init__(
        self,
        dim: int,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        center_momentum: float = 0.9,
        *,
        reduce: Callable[[Tensor], Tensor] = identity,
    ) -> None:
        super().__init__()
        check_count(dim=dim)
        check_positive(student_temperature=student_temperature, teacher_temperature=teacher_temperature)
        if not 0 <= center_momentum <= 1:
            raise UsageError(f"center_momentum is {center_momentum}.", "Give one between 0 and 1; the paper has 0.9.")
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.center_momentum, self.reduce = center_momentum, reduce
        self.register_buffer("center", torch.zeros(dim))

    def forward(self, teacher_outputs: Sequence[Tensor], student_outputs: Sequence[Tensor]) -> tuple[Tensor, Terms]:
        self._check(teacher_outputs, student_outputs)
        with full_precision(*teacher_outputs, *student_outputs) as outputs:
            teacher, student = torch.cat(outputs[:2]).detach(), outputs[2:]  # g_t of both views     [2N, K]
            both = teacher_probabilities(teacher, self.center.to(teacher.dtype), self.teacher_temperature)  # [2N, K]
            p_t = both.chunk(2)  # P_t of each view     [N, K]
            log_p_s = [(x / self.student_temperature).log_softmax(1) for x in student]  # log P_s     [N, K]
            pairs = [(t, s) for t in range(2) for s in range(len(student)) if s != t]
            loss = torch.stack([-(p_t[t] * log_p_s[s]).sum(1).mean() for t, s in pairs]).mean()  # H(P_t, P_s)

            cross_entropy = loss.detach()
            entropy = torch.special.entr(both).sum(1).mean()  # H(P_t); both views stand in as many pairs
            marginal = self.reduce(both.mean(0))  # over the global batch     [K]
            if self.training:
                self._move_center(teacher.mean(0))
            return loss, {
                "cross_entropy": cross_entropy,
                "teacher_entropy": entropy,
                "divergence": cross_entropy - entropy,
                "marginal_entropy": torch.special.entr(marginal).sum(),
            }

    @torch.no_grad()
    def _move_center(self, mean: Tensor) -> None:
        """c <- m c + (1 - m) mean over the global batch and both views     [K]"""
        self.center.lerp_(self.reduce(mean).to(self.center.dtype), 1 - self.center_momentum)

    def _check(self, teacher_outputs: Tensor | Sequence[Tensor], student_outputs: Tensor | Sequence[Tensor]) -> None:
        if isinstance(teacher_outputs, Tensor) or len(teacher_outputs) != 2:
            raise UsageError("The teacher's outputs are not a pair.", "Give (view 1, view 2), each [images, outputs].")
        if isinstance(student_outputs, Tensor) or len(student_outputs) < 2:
            raise UsageError(
                "The student's outputs are not those of two views or more.",
                "Give a list of [images, outputs]: the teacher's two views first.",
            )
        named = {f"teacher_outputs[{view}]": x for view, x in enumerate(teacher_outputs)}
        check_rows(named | {f"student_outputs[{crop}]": x for crop, x in enumerate(student_outputs)})
        if teacher_outputs[0].shape[1] != len(self.center):
            raise UsageError(
                f"There are {teacher_outputs[0].shape[1]} outputs and a centre of {len(self.center)}.",
                "Give DINOLoss the number of outputs as dim.",
            )

    def extra_repr(self) -> str:
        return (
            f"dim={len(self.center)}, student_temperature={self.student_temperature}, "
            f"teacher_temperature={self.teacher_temperature}, center_momentum={self.center_momentum}"
        )

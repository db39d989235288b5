"""DINO (Caron et al. 2021): predict, from any crop, what a slow copy of the network says of another view.

The teacher (encoder and head, copies of the student's at the start) sees the two views, the student all crops. Crops of
one size pass the encoder together and all crops pass the head together, as in the official code; the teacher is in
training mode, its batch statistics are its own. The teacher's temperature rises with every step, the official code's
with every epoch.

Without ``before_step`` the schedules stand at their end: the last layer learns, the teacher's temperature is the final
one. With plain PyTorch:

>>> from compressl.settings.methods import DINOSettings
>>> encoder = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(3 * 4 * 4, 32))  # yours
>>> method = DINO(DINOSettings(hidden=64, bottleneck=16, outputs=24), encoder, features=32)
>>> optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=5e-4)
>>> for step in range(2):
...     views = [torch.randn(16, 3, size, size) for size in (8, 8, 6, 6)]  # yours: two views, then small crops
...     method.before_step(progress=step / 2)  # the last layer is frozen at first; the teacher's temperature
...     loss, terms = method(views)
...     optimizer.zero_grad()
...     loss.backward()
...     optimizer.step()
...     method.after_step(progress=step / 2)  # the teacher follows
>>> sorted(terms)
['cross_entropy', 'divergence', 'marginal_entropy', 'teacher_entropy']
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressl.distributed import average, mean
from compressl.methods.base import Method
from compressl.methods.multi_crop import encode
from compressl.models import ema
from compressl.models.heads import truncated_normal
from compressl.objectives import DINOLoss
from compressl.objectives.common import full_precision, unit
from compressl.settings.methods import DINOSettings


class DINOHead(nn.Module):
    """Three layers to a bottleneck on the sphere, then its cosine with each row of the last layer: [N, F] -> [N, K].

    GELU between the layers; weights from a normal distribution of deviation 0.02, biases from 0. With batch norm the
    hidden layers have no bias: it would be subtracted.

    Source: the official code of Caron et al. 2021; appendix C of the paper.
    """

    def __init__(self, features: int, hidden: int, bottleneck: int, outputs: int, *, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (features, hidden):
            layers.append(nn.Linear(inputs, hidden, bias=not batch_norm))
            layers += [nn.BatchNorm1d(hidden), nn.GELU()] if batch_norm else [nn.GELU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))
        truncated_normal(self.mlp)
        self.last = Cosines(bottleneck, outputs)

    def bottleneck(self, x: Tensor) -> Tensor:
        with full_precision(self.mlp(x)) as (out,):
            return unit(out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.bottleneck(x))
        return out


class Cosines(nn.Linear):
    """Cosines of unit vectors [N, D] with the rows v_k of the weight: x^T v_k / ||v_k|| [N, K].

    A weight normalisation whose gains are 1 and stay so; the gradient is that of v, through its norm.
    """

    frozen = False  # no gradient rather than one of 0, with which weight decay and momentum would still move the weight

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)  # starts as the official one does: PyTorch's own

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.detach() if self.frozen else self.weight
        with full_precision(x, weight) as (x, weight):  # in bf16 they are too coarse for the temperatures
            return F.linear(x, unit(weight))


class DINO(Method):
    """student: crops -> f -> h; teacher: two views -> f' -> h', an exponential moving average."""

    def __init__(self, settings: DINOSettings, encoder: nn.Module, features: int) -> None:
        super().__init__()
        self.settings = s = settings
        self.encoder = encoder  # f
        self.head = DINOHead(features, s.hidden, s.bottleneck, s.outputs, batch_norm=s.batch_norm)  # h
        self.teacher = ema.slow_copy(nn.Sequential(self.encoder, self.head))  # h' f'
        self.objective = DINOLoss(
            s.outputs, s.student_temperature, s.teacher_temperature, s.center_momentum, reduce=mean
        )
        self.before_step(1.0)

    def forward(
        self, views: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        student = self.head(encode(self.encoder, views)).chunk(len(views))
        with torch.no_grad():
            encoder, head = self.teacher.children()
            teacher = head(encode(encoder, views[:2])).chunk(2)
        # the logits stay where they are, K may be 65536: only means over processes travel
        loss, terms = self.objective(teacher, student)
        return mean(loss), average(terms)

    def embed(self, view: Tensor) -> Tensor:
        out: Tensor = self.head.bottleneck(self.encoder(view))  # the outputs are linear in it
        return out

    def before_step(self, progress: float) -> None:
        s = self.settings
        rise = (s.teacher_temperature - s.teacher_temperature_start) * min(1.0, progress / s.teacher_warmup)
        self.objective.teacher_temperature = s.teacher_temperature_start + rise
        self.head.last.frozen = progress < s.freeze

    def after_step(self, progress: float) -> None:
        student = nn.Sequential(self.encoder, self.head)
        ema.update(self.teacher, student, ema.momentum_at(progress, self.settings.ema))

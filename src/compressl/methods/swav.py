"""SwAV (Caron et al. 2020): assign an image to prototypes from one crop, and predict the assignment from the others.

Crops of one size pass the encoder together and all crops pass the head together, as in the official code. Assignments
are those of the global batch. The head is the official one (hidden layer with batch norm and ReLU, a biased output
layer) less the hidden bias, which batch norm subtracts; its weights start as in the other methods here.

Without ``before_step`` the schedules stand at their end: prototypes learn, and the queue, if there is one, is in use.
With plain PyTorch:

>>> from compressl.settings.methods import SwAVSettings
>>> encoder = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(3 * 4 * 4, 32))  # yours
>>> method = SwAV(SwAVSettings(hidden=64, dim=16, prototypes=20), encoder, features=32)
>>> optimizer = torch.optim.SGD(method.parameters(), lr=0.06, momentum=0.9)
>>> for step in range(2):
...     views = [torch.randn(16, 3, size, size) for size in (8, 8, 6, 6)]  # yours: two views, then small crops
...     method.before_step(progress=step / 2)  # the prototypes are frozen at first
...     loss, terms = method(views)
...     optimizer.zero_grad()
...     loss.backward()
...     optimizer.step()
>>> sorted(terms)
['alignment', 'assignment_entropy', 'cross_entropy', 'marginal_entropy']
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressl.distributed import gather
from compressl.methods.base import Method
from compressl.methods.multi_crop import encode
from compressl.models.heads import linear, mlp
from compressl.objectives import SwAVLoss
from compressl.objectives.common import cosine, full_precision, unit
from compressl.settings.methods import SwAVSettings


class SwAV(Method):
    """crops -> f -> g -> z on the sphere -> cosines with the prototypes C -> swapped prediction.

    Attributes:
        queue: the newest embeddings of each of the two views, newest first, zeros where not yet filled
            [2, settings.queue, D].
    """

    queue: Tensor

    def __init__(self, settings: SwAVSettings, encoder: nn.Module, features: int) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = encoder  # f
        self.projection = mlp(features, settings.hidden, settings.dim, bias=True)  # g
        self.prototypes = linear(settings.dim, settings.prototypes)  # C, unit rows [K, D]
        self.objective = SwAVLoss(settings.temperature, settings.epsilon, settings.iterations)
        self.register_buffer("queue", torch.zeros(2, settings.queue, settings.dim))
        self._full = False  # a queue that is full stays so: a device is asked, and waited for, only until then
        self.register_load_state_dict_post_hook(_ask_again)  # type: ignore[no-untyped-call]
        self.before_step(1.0)

    def forward(
        self, views: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        crops = self.projection(encode(self.encoder, views)).chunk(len(views))
        with full_precision(*(gather(crop) for crop in crops)) as raw:  # scores in bf16 are too coarse for epsilon
            z = [unit(crop) for crop in raw]  # [N, D]
            prototypes = self._unit_prototypes().to(z[0].dtype)
            scores = [F.linear(crop, prototypes) for crop in z]  # C^T z     [N, K]
            queued = self._queue_scores(prototypes)
        loss, terms = self.objective(scores, queued)
        if self.training and self.queueing:
            self._enqueue(z[0], z[1])
        return loss, terms | {"alignment": cosine(z[0], z[1]).detach().mean()}

    def embed(self, view: Tensor) -> Tensor:
        out: Tensor = self.projection(self.encoder(view))
        return out

    def before_step(self, progress: float) -> None:
        self.queueing = self.settings.queue > 0 and progress >= self.settings.queue_start
        # detached rather than given a gradient of 0, with which weight decay and momentum would still move them
        self.frozen = progress < self.settings.freeze

    def _unit_prototypes(self) -> Tensor:
        """C as the official code has it: put back on the sphere before each use, by no part of the gradient."""
        weight = self.prototypes.weight
        with torch.no_grad():
            weight.copy_(unit(weight))
        return weight.detach() if self.frozen else weight

    @torch.no_grad()
    def _queue_scores(self, prototypes: Tensor) -> tuple[Tensor, Tensor] | None:
        """The queue's cosines with today's prototypes; None until it is full, which its last row tells."""
        if not self.queueing:
            return None
        self._full = self._full or bool(self.queue[:, -1].any())
        if not self._full:
            return None
        first, second = F.linear(self.queue.to(prototypes.dtype), prototypes)  # [Q, K]
        return first, second

    @torch.no_grad()
    def _enqueue(self, *z: Tensor) -> None:
        for queue, new in zip(self.queue, z, strict=True):
            queue.copy_(torch.cat([new.to(queue.dtype), queue])[: len(queue)])


def _ask_again(method: SwAV, keys: object) -> None:
    """Another queue was loaded."""
    method._full = False

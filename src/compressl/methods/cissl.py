"""CISSL (Dubois et al. 2022, "Improving Self-Supervised Learning by Characterizing Idealized Representations").

SimCLR in which only one side is projected by an MLP, the teacher; the other side, the student, plays the probe that
will be fitted to the features downstream, and is linear if that is. Both end in a batch norm, as in the released code,
with the layers and the initialisation of its TinyImageNet experiments; the bias before that norm is dead weight, kept
because the published sizes contain it. Both views pass together, as there.

With plain PyTorch:

>>> from compressl.settings.methods import CISSLSettings
>>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 32))  # yours
>>> method = CISSL(CISSLSettings(hidden=64, dim=16), encoder, features=32)
>>> optimizer = torch.optim.AdamW(method.parameters(), lr=1e-3)
>>> for step in range(2):
...     views = [torch.randn(16, 3, 8, 8), torch.randn(16, 3, 8, 8)]  # yours: two views of the same images
...     loss, terms = method(views)
...     optimizer.zero_grad()
...     loss.backward()
...     optimizer.step()
>>> sorted(terms)
['alignment', 'contrastive_accuracy', 'cross_entropy', 'mutual_information_bound']
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compressl.distributed import gather
from compressl.methods.base import Method
from compressl.models.heads import mlp, truncated_normal
from compressl.objectives import CISSLLoss
from compressl.settings.methods import CISSLSettings


class CISSL(Method):
    """views -> phi -> g (teacher), h (student) -> which image?"""

    def __init__(self, settings: CISSLSettings, encoder: nn.Module, features: int) -> None:
        super().__init__()
        s = settings

        def head(hidden_layers: int) -> nn.Module:
            return truncated_normal(mlp(features, s.hidden, s.dim, layers=hidden_layers + 1, bias=True, norm="affine"))

        self.encoder = encoder  # phi
        self.teacher = head(s.hidden_layers)  # g
        self.student = head(0 if s.probe == "linear" else s.hidden_layers)  # h, of the family of the probes
        self.objective = CISSLLoss(s.temperature)

    def forward(
        self, views: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        z = self.encoder(torch.cat(list(views)))  # one pass: batch statistics are over both views     [2N, F]
        s1, s2 = self.student(z).chunk(2)
        t1, t2 = self.teacher(z).chunk(2)
        loss, terms = self.objective((gather(s1), gather(s2)), (gather(t1), gather(t2)))
        return loss, terms

    def embed(self, view: Tensor) -> Tensor:
        out: Tensor = self.student(self.encoder(view))
        return out

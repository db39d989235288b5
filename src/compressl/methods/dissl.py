"""DISSL (Dubois et al. 2022, "Improving Self-Supervised Learning by Characterizing Idealized Representations").

A teacher head, an MLP, gives each image a code among C clusters; a student head, of the family of the downstream
probes, predicts it from the features of another view. One encoder, no slow copy, no stop-gradient, no queue: an
entropy keeps the codes from being all alike. Views of one size pass the encoder together, and the student sees all
crops in one batch; small crops have no code of their own. (Which views pass together is ours.)

It starts slowly, from codes that are nearly uniform, and a learning rate that is too high ends in one cluster for all:
loss 0. The paper trains with Adam at 0.002 for a batch of 256.

With plain PyTorch:

>>> from compressl.settings.methods import DISSLSettings
>>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 32))  # yours
>>> method = DISSL(DISSLSettings(hidden=64, bottleneck=16, clusters=128), encoder, features=32)
>>> optimizer = torch.optim.AdamW(method.parameters(), lr=1e-3)
>>> for step in range(2):
...     views = [torch.randn(16, 3, 8, 8), torch.randn(16, 3, 8, 8)]  # yours: two views of the same images
...     loss, terms = method(views)
...     optimizer.zero_grad()
...     loss.backward()
...     optimizer.step()
>>> bool(terms["mutual_information"] < torch.tensor(16.0).log())  # nats; what a batch of 16 can tell at most
True
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressl import distributed
from compressl.methods.base import Method
from compressl.methods.multi_crop import encode
from compressl.methods.multiplier import Multiplier
from compressl.models.heads import linear, mlp, truncated_normal
from compressl.objectives import DISSLLoss
from compressl.settings.methods import DISSLSettings

NARROW = 2048  # features up to which the ImageNet teacher has its residual block before the bottleneck


class Residual(nn.Module):
    """z + ReLU(branch(z)), [N, F] -> [N, F]."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, z: Tensor) -> Tensor:
        return z + F.relu(self.branch(z))


def low_rank_head(features: int, settings: DISSLSettings, hidden_layers: int) -> nn.Module:
    """(Linear, BN, ReLU) for each hidden layer; then Linear, BN, Linear: [N, F] -> logits [N, C], of low rank.

    >>> sum(p.numel() for p in low_rank_head(512, DISSLSettings(clusters=16384), hidden_layers=1).parameters())
    9456640
    """
    s = settings
    before = mlp(features, s.hidden, s.bottleneck, layers=hidden_layers + 1, norm="affine")
    return nn.Sequential(before, linear(s.bottleneck, s.clusters, bias=True))


def residual_head(features: int, settings: DISSLSettings) -> nn.Module:
    """The teacher for ImageNet, [N, F] -> [N, C]: its residual block is before the bottleneck, or behind it where there
    are more than 2048 features.

    >>> sum(p.numel() for p in residual_head(2048, DISSLSettings(hidden=2048, clusters=16384)).parameters())
    17851392
    """
    hidden, rank, clusters = settings.hidden, settings.bottleneck, settings.clusters
    if features <= NARROW:
        block = Residual(mlp(features, hidden, features, norm="affine"))
        return nn.Sequential(block, mlp(features, rank, clusters, bias=True))
    block = Residual(mlp(rank, hidden, rank, layers=3, norm="affine"))
    narrow = mlp(features, hidden, rank, layers=1, norm="affine")
    return nn.Sequential(narrow, nn.ReLU(), block, linear(rank, clusters, bias=True))


class DISSL(Method):
    """views -> phi -> g (codes, of the two views), h (predictions, of all views)."""

    def __init__(self, settings: DISSLSettings, encoder: nn.Module, features: int) -> None:
        super().__init__()
        self.settings = s = settings
        imagenet = s.heads == "imagenet"
        self.encoder = encoder  # phi
        self.teacher = residual_head(features, s) if imagenet else low_rank_head(features, s, s.hidden_layers)  # g
        self.student = low_rank_head(features, s, 0 if s.probe == "linear" else s.hidden_layers)  # h
        for head in (self.teacher, self.student):
            reset(head) if imagenet else truncated_normal(head)
        self.objective = DISSLLoss(
            s.entropy_weight,
            s.invariance_weight,
            s.teacher_temperature,
            s.student_temperature,
            reduce=distributed.mean,  # of the marginals: the tables of logits are too large to gather
        )
        self.multiplier = None  # of lambda, if it adapts: never below what keeps the codes apart once beta is reached
        if s.target_entropy_bits is not None:
            target = s.target_entropy_bits * math.log(2)
            self.multiplier = Multiplier(s.entropy_weight, target, lowest=1 + s.invariance_weight, raises=True)

    def forward(
        self, views: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        z = encode(self.encoder, views)  # [V N, F]
        codes = self.teacher(z[: 2 * len(views[0])]).chunk(2)  # a_1, a_2     [N, C] each
        predictions = self.student(z).chunk(len(views))  # b_1, ..., b_V     [N, C] each
        loss, terms = self.objective(codes, predictions)
        terms = distributed.average(terms)
        if self.multiplier is not None:
            terms["entropy_weight"] = self.multiplier.hold(terms["marginal_entropy"])
        return distributed.mean(loss), terms

    def embed(self, view: Tensor) -> Tensor:
        out: Tensor = self.teacher(self.encoder(view))
        return out

    def before_step(self, progress: float) -> None:
        s = self.settings
        if self.multiplier is not None:
            self.objective.entropy_weight = self.multiplier.value()
        start = self.objective.entropy_weight  # a multiplier's stays on its device: to ask for it would be to wait
        done = min(1.0, progress / s.invariance_warmup) if s.invariance_warmup else 1.0
        self.objective.invariance_weight = (1 - done) * start + done * s.invariance_weight


def reset(head: nn.Module) -> None:
    """PyTorch's own initialisation, which the heads for ImageNet have."""
    for layer in head.modules():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()

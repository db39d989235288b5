"""Two alarms: values that are not finite, and embeddings that are all alike."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from compressl.errors import NumericsError
from compressl.files import write_atomically


@dataclass
class NonFiniteGuard:
    """Skips a step whose loss or gradient is not finite; stops when that becomes a habit.

    Tested before the optimizer, the slow copy and the running statistics are touched.
    """

    in_a_row: int = 0
    total: int = 0
    most_in_a_row: int = 3
    most_share: float = 0.01

    def check(
        self,
        finite: bool,
        *,
        step: int,
        folder: Path,
        images: Callable[[], Sequence[str]],
        terms: Callable[[], dict[str, float]],
        writes: bool = True,
    ) -> str | None:
        """None if all is well, else the sentence about the skipped step.

        Args:
            images, terms: give the names of the batch's images and the loss terms; asked only if they are needed.
            writes: whether this process writes the report.

        Raises:
            NumericsError: too many in a row, or more than 1 % of a hundred and more steps.
        """
        if finite:
            self.in_a_row = 0
            return None
        self.in_a_row += 1
        self.total += 1
        names = list(images())
        report = folder / f"nonfinite-{step}.json"
        finite_terms = {n: v if math.isfinite(v) else None for n, v in terms().items()}
        if writes:
            write_atomically(report, json.dumps({"step": step, "terms": finite_terms, "images": names}, indent=2))
        message = f"Step {step} was skipped: its loss or gradient is not finite. Its {len(names)} images: {report}."
        if self.in_a_row > self.most_in_a_row or (step >= 100 and self.total > self.most_share * step):
            raise NumericsError(
                f"{self.total} steps up to {step} were not finite in loss or gradient ({self.in_a_row} in a row).",
                f"{report} names the images. Start anew with another --out and a lower --optimizer.lr, "
                "--optimizer.clip 1 or --precision fp32; the last checkpoint is untouched.",
            )
        return message

    def state(self) -> dict[str, int]:
        return {"in_a_row": self.in_a_row, "total": self.total}


@dataclass(frozen=True)
class Spread:
    """How far embeddings are from being all alike."""

    std: float
    """Mean standard deviation of the unit rows' coordinates, times sqrt(D): 1 uniform on the sphere, 0 collapsed."""
    cosine: float
    """Mean cosine between two different rows."""
    effective_rank: float
    """exp of the entropy of the singular values' shares (Roy and Vetterli 2007; Garrido et al. 2023, RankMe)."""


def spread(embeddings: Tensor) -> Spread:
    """The spread of raw embeddings [N, D].

    >>> spread(torch.eye(4)).cosine
    0.0
    """
    if not bool(torch.isfinite(embeddings).all()):
        return Spread(math.nan, math.nan, math.nan)
    z = F.normalize(embeddings.detach().float(), dim=1)
    n, d = z.shape
    std = float(z.std(dim=0).mean() * d**0.5)
    cosine = float((z.sum(0).square().sum() - z.square().sum()) / (n * (n - 1)))
    singular = torch.linalg.svdvals(embeddings.detach().double().cpu())
    share = singular / singular.sum().clamp_min(1e-12)
    rank = float(torch.exp(-(share * (share + 1e-12).log()).sum()))
    return Spread(std, cosine, rank)


@dataclass
class CollapseAlarm:
    """Warns when embeddings have been alike for several checks in a row.

    The limits are loose: SimSiam is healthy at std 0.7 and cosine 0.4; collapsed runs reach 0.1 and 0.98 within 40
    steps. kNN accuracy sees none of it. The rank is for projections that end in a batch norm: it pulls collapsed rows
    of a small batch apart again, but along one line.
    """

    min_std: float = 0.2
    max_cosine: float = 0.95
    min_rank: float = 1.5
    patience: int = 3
    in_a_row: int = 0
    raised: bool = False
    advice: ClassVar[str] = (
        "Lower --optimizer.lr or raise --optimizer.warmup-epochs; if the method has a beta, let it "
        "rise slowly (--method.beta-schedule linear)."
    )

    def check(self, now: Spread, step: int) -> str | None:
        """The sentence to show when the alarm goes off, once."""
        healthy = now.std >= self.min_std and now.cosine <= self.max_cosine and now.effective_rank >= self.min_rank
        collapsed = not healthy  # a NaN is not healthy
        self.in_a_row = self.in_a_row + 1 if collapsed else 0
        if self.in_a_row < self.patience or self.raised:
            return None
        self.raised = True
        return (
            f"The embeddings have collapsed at step {step}: mean cosine between images {now.cosine:.3f}, spread "
            f"{now.std:.3f} of 1, effective rank {now.effective_rank:.1f}. {self.advice}"
        )

    @property
    def sounding(self) -> bool:
        """Whether the last checks all found a collapse, spoken of or not."""
        return self.in_a_row >= self.patience

    def state(self) -> dict[str, int]:
        return {"in_a_row": self.in_a_row, "raised": int(self.raised)}


def as_dict(now: Spread) -> dict[str, float]:
    """For the metrics file."""
    return {f"embedding_{name}": value for name, value in asdict(now).items()}

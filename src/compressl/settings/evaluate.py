"""Everything `compressl evaluate` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from compressl.settings.options import check_device, check_seed


@dataclass(frozen=True)
class EvaluateSettings:
    """Measure what a representation keeps, beside raw pixels and a random encoder."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder of a finished `compressl pretrain`."""
    data: str
    """Labelled images: a folder with class folders, Parquet with labels, digits, cifar10, ..."""
    test: str | None = None
    """Test images, if --data does not bring its own. Default: its test split, else a random fifth of each class."""
    k: int = 20
    """Neighbours that vote in the kNN classifier."""
    temperature: float = 0.07
    """Votes weigh exp(cosine / temperature) (Wu et al. 2018, section 3.4)."""
    weight_decays: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    """Tried for the linear probe; one is chosen on a held-out fifth of the training images."""
    limit: int | None = None
    """Use N training images, drawn per class."""
    resamples: int = 1000
    """Bootstrap resamples of the test images, for the 95 % intervals."""
    batch_size: int = 512
    """Images per forward pass."""
    seed: int = 0
    """Of splits, the random encoder and the bootstrap."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "bf16", "fp32"] = "fp32"
    """Of the forward pass; the measures are always fp32."""
    cache: Path | None = None
    """Where decoded images are packed. Default: $COMPRESSL_CACHE, else ~/.cache/compressl."""
    out: Path | None = None
    """Where to write the result. Default: evaluation.json in the run folder."""

    def check(self) -> list[str]:
        problems = []
        if self.k < 1:
            problems.append(f"k must be at least 1; it is {self.k}.")
        if not self.temperature > 0:
            problems.append(f"temperature must be greater than 0; it is {self.temperature}.")
        if not self.weight_decays or min(self.weight_decays) < 0:
            problems.append("weight-decays needs at least one value, none negative.")
        if self.limit is not None and self.limit < 10:
            problems.append(f"limit must be at least 10; it is {self.limit}.")
        if self.resamples < 100:
            problems.append(
                f"resamples must be at least 100 for an interval to mean something; it is {self.resamples}."
            )
        problems += check_device(self.device) + check_seed(self.seed)
        if self.batch_size < 1:
            problems.append(f"batch_size must be at least 1; it is {self.batch_size}.")
        return problems

"""Everything `compressl demo` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DemoSettings:
    """SimCLR against C-SimCLR on built-in images: train both, evaluate them, write a report."""

    out: Path = Path("runs/demo")
    """Where the runs and report.html go; an earlier demo there is replaced."""
    epochs: int | None = None
    """Passes over the images. Default: that of the recipes digits/simclr and digits/c-simclr."""
    seed: int = 0
    """Of everything."""

    def check(self) -> list[str]:
        return [] if self.epochs is None or self.epochs >= 1 else [f"epochs must be at least 1; it is {self.epochs}."]

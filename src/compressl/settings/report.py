"""Everything `compressl report` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class ReportSettings:
    """Write one self-contained HTML page about one run, or comparing several."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders."""
    out: Path | None = None
    """The page. Default: report.html in the run folder; for several runs, in the folder that holds them."""

    def check(self) -> list[str]:
        return [] if self.runs else ["Name at least one run folder."]

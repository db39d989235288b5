"""Where numbers go: ``metrics.jsonl``, and TensorBoard if it is installed.

A line is a JSON object with ``step``, ``epoch`` and values; what depends on the clock stands under ``time``, so that
the rest can be compared between a run that was interrupted and one that was not.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any

from compressl.files import storage_error, write_atomically
from compressl.runs import RunFolder


class MetricsWriter:
    """Appends lines; on resume, drops those after the checkpoint so that no step appears twice."""

    def __init__(self, run: RunFolder, resume_step: int, tensorboard: bool = True) -> None:
        self.path = run.metrics
        kept = [line for line in run.read_metrics() if line["step"] <= resume_step] if resume_step else []
        write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self.file = self.path.open("a", encoding="utf-8")
        self.tensorboard = _open_tensorboard(run.path / "tensorboard", resume_step) if tensorboard else None

    def write(self, line: dict[str, Any]) -> None:
        """One line, in the file before this returns.

        Raises:
            ResourceError: the disk is full.
        """
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        text = json.dumps(finite) + "\n"  # NaN is no JSON
        try:
            self.file.write(text)
            self.file.flush()
        except OSError as error:
            raise storage_error(error, self.path, len(text)) from error
        if self.tensorboard is not None:
            try:
                for name, value in {**line, **line.get("time", {})}.items():
                    if isinstance(value, int | float) and name != "step":
                        self.tensorboard.add_scalar(name, value, line["step"])
            except Exception:  # an optional copy of the numbers must not stop a run
                self.tensorboard = None

    def sync(self) -> None:
        """Down to the disk, with each checkpoint."""
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise storage_error(error, self.path, 0) from error

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk has been reported by the line that did not fit
            self.file.close()
        if self.tensorboard is not None:
            with contextlib.suppress(Exception):
                self.tensorboard.close()


class NoMetrics:
    """What the processes of a training have that do not write."""

    def write(self, line: dict[str, Any]) -> None:
        pass

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


def open_metrics(run: RunFolder, resume_step: int, tensorboard: bool) -> MetricsWriter | NoMetrics:
    """The metrics of a run from a step on."""
    return MetricsWriter(run, resume_step, tensorboard) if run.writes else NoMetrics()


def _open_tensorboard(folder: Path, purge_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(folder), purge_step=purge_step + 1)
    except Exception:  # not installed, broken, or no place to write: it is optional
        return None

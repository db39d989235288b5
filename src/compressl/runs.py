"""The run folder: everything a training leaves behind, and all that later verbs need.

``config.toml`` (resolved, every default written out), ``environment.json``, ``run.json`` (status), ``metrics.jsonl``
(the truth about the training), ``views.png``, ``checkpoints/``, ``encoder.safetensors`` and ``encoder.json`` (the
encoder alone), ``evaluation.json``, ``report.html``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressl.errors import CheckpointError, ResourceError
from compressl.files import storage_error, write_atomically


@dataclass(frozen=True)
class RunFolder:
    """Paths and small files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    def status(self) -> str | None:
        """running, interrupted, failed or finished; None where no run has begun."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return str(json.loads((self.path / "run.json").read_text()).get("status"))
        return None

    def set_status(self, status: str, **details: Any) -> None:
        write_atomically(self.path / "run.json", json.dumps({"status": status, **details}, indent=2))

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line that a crash cut off is left out."""
        lines = []
        with contextlib.suppress(FileNotFoundError), self.metrics.open(encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    lines.append(json.loads(line))
        return lines


def claim(path: Path, *, overwrite: bool) -> RunFolder:
    """Make or take over a run folder for a training.

    An interrupted or failed run is continued; a finished one, or a folder with other things in it, is left alone
    unless ``overwrite`` is set.

    Raises:
        CheckpointError: the folder holds a finished run or foreign files.
        ResourceError: it cannot be made or written.
    """
    run = RunFolder(path)
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"{path} is a file.", "Give another --out.")
    if path.is_dir() and any(path.iterdir()):
        status = run.status()
        if overwrite and status is not None:
            _check_not_running(path)
            _empty(path)
        elif status == "finished":
            raise CheckpointError(f"{path} holds a finished run.", "Give another --out, or --overwrite to replace it.")
        elif status is None and any(p.name != "run.lock" for p in path.iterdir()):
            raise CheckpointError(
                f"{path} is not empty and holds no run of ours.", "Give another --out; nothing there was touched."
            )
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / ".writable", b"")
        (path / ".writable").unlink()
    except OSError as error:
        raise storage_error(error, path, 0) from error
    return run


def _empty(path: Path) -> None:
    """Remove what a run wrote, and nothing else."""
    ours = (
        "config.toml",
        "environment.json",
        "run.json",
        "metrics.jsonl",
        "encoder.*",
        "evaluation.json",
        "report.html",
    )
    for pattern in (*ours, "views.png", "nonfinite-*.json", "events.out.tfevents.*", "neighbors.png"):
        for file in path.glob(pattern):
            file.unlink(missing_ok=True)
    for folder in ("checkpoints", "tensorboard"):
        shutil.rmtree(path / folder, ignore_errors=True)


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Keep a second training out of a run folder; the lock of a process that is gone is taken over.

    Raises:
        CheckpointError: another process trains there.
    """
    file = path / "run.lock"
    _check_not_running(path)
    file.unlink(missing_ok=True)
    try:
        with file.open("x") as handle:
            json.dump({"pid": os.getpid(), "host": socket.gethostname()}, handle)
    except FileExistsError:
        raise CheckpointError(f"Another process has just begun to train in {path}.", "Give another --out.") from None
    except OSError as error:
        raise ResourceError(f"{file} cannot be written: {error.strerror}.", "Check the folder.") from error
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a training that never began leaves no empty folder
            path.rmdir()


def _check_not_running(path: Path) -> None:
    try:
        owner = json.loads((path / "run.lock").read_text())
        pid, host = int(owner["pid"]), str(owner["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if host != socket.gethostname():
        raise CheckpointError(
            f"{path} is in use by process {pid} on {host}, as its run.lock says.",
            "Wait for it; if it is gone, delete run.lock.",
        )
    if pid != os.getpid() and _is_alive(pid):
        raise CheckpointError(f"{path} is in use by process {pid}.", "Wait for it, or give another --out.")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    # a process that has ended but was not yet reaped holds no run
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True

"""The run folder: everything a training leaves behind, and all that later verbs need.

``config.toml`` (resolved, every default written out), ``environment.json``, ``run.json`` (status), ``metrics.jsonl``
(the truth about the training), ``views.png``, ``checkpoints/``, ``encoder.safetensors`` and ``encoder.json`` (the
encoder alone), ``evaluation.json``, ``report.html``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressl.errors import CheckpointError
from compressl.files import storage_error, write_atomically


@dataclass(frozen=True)
class RunFolder:
    """Paths and small files of one run."""

    path: Path
    writes: bool = True
    """False for the other processes of a training: one alone writes."""

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
        """running, interrupted, failed or finished; damaged where run.json is unreadable; None where no run began."""
        try:
            return str(json.loads((self.path / "run.json").read_text())["status"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return None if (self.path / "run.json").is_dir() or self.path.is_file() else "damaged"

    def set_status(self, status: str, **details: Any) -> None:
        """Write the status; what was noted about earlier resumptions stays."""
        self.write("run.json", json.dumps({"status": status, "resumed": self.resumed(), **details}, indent=2))

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file whole; nothing where another process writes."""
        if self.writes:
            write_atomically(self.path / name, content)

    def resumed(self) -> list[dict[str, Any]]:
        """Each resumption: the step, and what was not as before."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return list(json.loads((self.path / "run.json").read_text()).get("resumed", []))
        return []

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

    An interrupted or failed run may be continued; a finished one is left alone unless ``overwrite`` is set, a folder
    with other things in it always. Nothing is removed here.

    Raises:
        CheckpointError: the folder holds a finished run or foreign files.
        ResourceError: it cannot be made or written.
    """
    run = RunFolder(path)
    try:
        occupied = path.is_dir() and any(p.name != "run.lock" for p in path.iterdir())
        if path.exists() and not path.is_dir():
            raise CheckpointError(f"{path} is a file.", "Give another --out.")
    except OSError as error:
        raise storage_error(error, path, 0) from error
    if occupied:
        status = run.status()
        if status == "finished" and not overwrite:
            raise CheckpointError(f"{path} holds a finished run.", "Give another --out, or --overwrite to replace it.")
        if status is None:
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


def clear(run: RunFolder) -> None:
    """Remove what a run wrote, and nothing else."""
    path = run.path
    ours = (
        "config.toml",
        "environment.json",
        "run.json",
        "metrics.jsonl",
        "encoder.*",
        "heads.*",
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
    """Keep a second training out of a run folder. The system holds the lock and frees it when the process is gone,
    however it went; the file's words are for people.

    Raises:
        CheckpointError: another process trains there.
        ResourceError: the folder cannot be written.
    """
    file = path / "run.lock"
    try:
        handle = file.open("a+")
    except OSError as error:
        raise storage_error(error, file, 0) from error
    with handle:
        if not take_lock(handle.fileno()):
            handle.seek(0)
            raise CheckpointError(
                f"{path} is in use by {handle.read() or 'another process'}.", "Wait for it, or give another --out."
            )
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        try:
            yield
        finally:
            handle.truncate(0)
            if not any(p.name != "run.lock" for p in path.iterdir()):  # it never began: leave no empty folder
                file.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    path.rmdir()


def take_lock(descriptor: int) -> bool:
    """Lock an open file for this process alone, if nobody else has."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # a file system without locks cannot refuse
        return error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
    return True

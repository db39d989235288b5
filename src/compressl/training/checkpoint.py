"""Checkpoints that are complete and verified, or not there.

A checkpoint is a folder ``checkpoints/step-000000120`` with ``state.pt`` and ``manifest.json`` (size and SHA-256 of
the former). It is written under another name, flushed to the disk and renamed, so a crash at any moment leaves the
checkpoint before it. Reading walks from the newest down and takes the first whose hash is right.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from compressl.errors import CheckpointError
from compressl.files import storage_error, sync_folder, write_atomically

SCHEMA = 1


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that was read, and the damaged ones that were passed over (name: reason)."""

    state: dict[str, Any]
    path: Path
    skipped: dict[str, str] = field(default_factory=dict)


def save(folder: Path, step: int, state: Mapping[str, Any], keep: int = 2) -> Path:
    """Write the state of a run at a step and remove all but the ``keep`` newest checkpoints.

    Args:
        state: plain containers, numbers, strings and tensors; it is read back without running any code.

    Raises:
        ResourceError: the disk is full or the folder cannot be written. Earlier checkpoints are intact.
    """
    target = folder / f"step-{step:09d}"
    buffer = io.BytesIO()
    torch.save({"schema": SCHEMA, "step": step, **state}, buffer)
    content = buffer.getbuffer()
    temporary = folder / f".step-{step:09d}.{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        temporary.mkdir()
        with (temporary / "state.pt").open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        manifest = {"schema": SCHEMA, "files": {"state.pt": {"size": len(content), "sha256": _sha256(content)}}}
        write_atomically(temporary / "manifest.json", json.dumps(manifest, indent=2))
        if target.exists():  # written before: the same step of the same run
            shutil.rmtree(temporary)
        else:
            temporary.rename(target)
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise storage_error(error, target, len(content)) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in [path for path in checkpoints(folder) if path <= target][keep:]:
        shutil.rmtree(old, ignore_errors=True)  # an old one too many does no harm; the next save tries again
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run, newest first, verified or not."""
    return sorted((p for p in folder.glob("step-*") if p.is_dir()), reverse=True)


def load_newest(folder: Path) -> Loaded | None:
    """The newest checkpoint that is whole, or None where there is none at all.

    Raises:
        CheckpointError: there are checkpoints and every one is damaged. Nothing is overwritten.
    """
    skipped: dict[str, str] = {}
    for path in checkpoints(folder):
        try:
            loaded = Loaded(load(path), path, skipped)
        except CheckpointError as error:
            skipped[path.name] = error.problem
            continue
        for name in skipped:  # out of the way, so that their steps can be saved again; kept, for who wants to look
            with contextlib.suppress(OSError):
                (folder / name).rename(folder / f"damaged-{name}")
        return loaded
    if skipped:
        listing = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise CheckpointError(
            f"No checkpoint in {folder} can be used ({listing}).",
            "Restore one from a copy, or start again with --overwrite.",
        )
    return None


def load(path: Path) -> dict[str, Any]:
    """The state that a checkpoint holds.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        expected = json.loads((path / "manifest.json").read_text())["files"]["state.pt"]
        content = (path / "state.pt").read_bytes()
        if len(content) != expected["size"]:
            raise CheckpointError(f"state.pt has {len(content)} bytes instead of {expected['size']}")
        if _sha256(content) != expected["sha256"]:
            raise CheckpointError("state.pt is not what was written (SHA-256 differs)")
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"unreadable ({type(error).__name__}: {error})") from error
    except Exception as error:  # the unpickler's own errors have no common base
        raise CheckpointError(f"refused ({type(error).__name__})") from error
    if state.get("schema") != SCHEMA:
        raise CheckpointError(f"schema {state.get('schema')} is not {SCHEMA}: written by another version of compressl")
    return state


def _remove_leftovers(folder: Path) -> None:
    """Temporary folders of a process that was killed while saving."""
    for leftover in folder.glob(".step-*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def _sha256(content: memoryview | bytes) -> str:
    return hashlib.sha256(content).hexdigest()

"""Packed images on disk: ``<cache>/<name>-<fingerprint>-<S>/``, complete and checked, or not there at all.

``images.npy`` (uint8 [N, H, W, 3]) and ``geometry.npy`` (int32 [N, 2]), mapped when used; ``journal.jsonl``, the hash
of every stretch; and, written last, ``store.json`` with what is checked at each start: sizes, the hash of the geometry
and of samples of the images. :func:`verify` checks all of it. ``source.json`` says where the images came from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np

from compressl.data.decode import Pixels
from compressl.data.journal import GEOMETRY, IMAGES, JOURNAL, VERSION, intact, read_layout, read_stretches
from compressl.data.packing import Contents

_SAMPLES, _SAMPLE_BYTES = 64, 65536  # what of images.npy is hashed: 4 MB, evenly spread, ends included


class Damaged(Exception):
    """A store that cannot be used; the message is the reason."""


def default_cache() -> Path:
    """``$COMPRESSL_CACHE``, or ``~/.cache/compressl``.

    >>> default_cache().name != ""
    True
    """
    given = os.environ.get("COMPRESSL_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "compressl"


def folder(cache: Path, name: str, fingerprint: str, side: int) -> Path:
    """Where the store of a source lies.

    >>> folder(Path("cache"), "my photos", "0123456789abcdef0123456789abcdef", 256).as_posix()
    'cache/my_photos-0123456789abcdef-256'
    """
    return cache / f"{re.sub(r'[^A-Za-z0-9_-]+', '_', name)[:64]}-{fingerprint[:16]}-{side}"


def load(folder: Path, count: int) -> Contents:
    """A store as it was written, mapped from disk.

    Raises:
        Damaged: with the reason, if it is not what :func:`compressl.data.writing.write` left.
    """
    try:
        about = json.loads((folder / "store.json").read_text("utf-8"))
        if about["version"] != VERSION:
            raise Damaged(f"its version is {about['version']}, not {VERSION}")
        images_file, geometry_file = folder / IMAGES, folder / GEOMETRY
        if images_file.stat().st_size != about["images_bytes"]:
            raise Damaged(f"images.npy has {images_file.stat().st_size} bytes instead of {about['images_bytes']}")
        if sampled_hash(images_file) != about["images_sampled_sha256"]:
            raise Damaged("images.npy is not what was written")
        if file_hash(geometry_file) != about["geometry_sha256"]:
            raise Damaged("geometry.npy is not what was written")
        images = np.load(images_file, mmap_mode="r", allow_pickle=False)
        geometry = np.load(geometry_file, mmap_mode="r", allow_pickle=False)
        unreadable = [(int(index), str(reason)) for index, reason in about["unreadable"]]
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise Damaged(f"{type(error).__name__}: {error}") from error
    if len(images) != count or geometry.shape != (count, 2):
        raise Damaged(f"it holds {len(images)} images instead of {count}")
    _hold(images_file, images)
    return Contents(images, geometry, unreadable)


def _hold(file: Path, mapped: Pixels) -> None:
    """Share a lock on the file for as long as it is mapped, so that nobody removes a store that is in use."""
    if sys.platform != "win32":  # which removes no mapped file
        import fcntl

        with contextlib.suppress(OSError):  # it may have no locks
            descriptor = os.open(file, os.O_RDONLY)
            weakref.finalize(mapped, os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def verify(folder: Path, progress: Callable[[int, int], None] | None = None) -> list[tuple[int, int]]:
    """Check every byte of a store; the ranges (first image, the one after the last) that are not what was written.

    ``progress(images, of all)`` counts those that are intact.

    Raises:
        Damaged: with the reason, if the store cannot even be read.
    """
    layout = read_layout(folder)
    if layout is None:
        raise Damaged(f"{JOURNAL} is missing or damaged")
    try:
        good = intact(folder, layout, read_stretches(folder), progress)
    except (OSError, ValueError, EOFError) as error:
        raise Damaged(f"{type(error).__name__}: {error}") from error
    damaged = [layout.range(number) for number in range(layout.stretches) if number not in good]
    if not damaged:
        load(folder, layout.images)  # what is not part of a stretch
    return damaged


def sampled_hash(file: Path) -> str:
    """SHA-256 of :data:`_SAMPLES` samples spread over a file."""
    size = file.stat().st_size
    total = hashlib.sha256()
    with file.open("rb") as stream:
        for start in np.linspace(0, max(0, size - _SAMPLE_BYTES), _SAMPLES).astype(np.int64):
            stream.seek(int(start))
            total.update(stream.read(_SAMPLE_BYTES))
    return total.hexdigest()


def file_hash(file: Path) -> str:
    """SHA-256 of a whole file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

"""Packed images on disk: ``<cache>/<name>-<fingerprint>-<S>/``, complete and checked, or not there at all.

``images.npy`` (uint8 [N, H, W, 3], mapped when used), ``geometry.npy`` (int32 [N, 2]) and, written last, ``store.json``
with sizes and hashes. A store is made in a hidden folder beside and renamed into place.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from compressl.data.packing import Contents, unpack
from compressl.data.source import Source
from compressl.errors import ResourceError

VERSION = 1  # raise it when the layout or the way images are packed changes
_SAMPLES, _SAMPLE_BYTES = 64, 65536  # what of images.npy is hashed: 4 MB, evenly spread, ends included
_STALE = 24 * 3600  # seconds without a write after which an unfinished store is taken for abandoned


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
    """A store as it was written, its images mapped from disk.

    Raises:
        Damaged: with the reason, if it is not exactly what :func:`write` left.
    """
    try:
        about = json.loads((folder / "store.json").read_text("utf-8"))
        if about["version"] != VERSION:
            raise Damaged(f"its version is {about['version']}, not {VERSION}")
        images_file, geometry_file = folder / "images.npy", folder / "geometry.npy"
        if images_file.stat().st_size != about["images_bytes"]:
            raise Damaged(f"images.npy has {images_file.stat().st_size} bytes instead of {about['images_bytes']}")
        if _sampled_hash(images_file) != about["images_sampled_sha256"]:
            raise Damaged("images.npy is not what was written")
        if _hash(geometry_file.read_bytes()) != about["geometry_sha256"]:
            raise Damaged("geometry.npy is not what was written")
        images = np.load(images_file, mmap_mode="r", allow_pickle=False)
        geometry = np.load(geometry_file, allow_pickle=False)
        unreadable = [(int(index), str(reason)) for index, reason in about["unreadable"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{type(error).__name__}: {error}") from error
    if len(images) != count or geometry.shape != (count, 2):
        raise Damaged(f"it holds {len(images)} images instead of {count}")
    return Contents(images, geometry, unreadable)


def write(
    folder: Path,
    source: Source,
    shape: tuple[int, int],
    exact: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Contents:
    """Decode a source into a new store and map it; a damaged store of that name is replaced.

    Raises:
        ResourceError: if there is no room, or the folder cannot be written.
    """
    needed = len(source) * (shape[0] * shape[1] * 3 + 8)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        if shutil.disk_usage(folder.parent).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _fill(partial, source, shape, exact, progress)
            _put_in_place(partial, folder, len(source))
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                f"The packed images of {source.name} need {needed / 1e9:.1f} GB, more than is free in {folder.parent}.",
                "Free some space, or name another folder with COMPRESSL_CACHE.",
            ) from error
        raise ResourceError(
            f"The packed images of {source.name} cannot be written to {folder.parent}: {error.strerror or error}.",
            "Name another folder with COMPRESSL_CACHE.",
        ) from error
    return load(folder, len(source))


def _fill(
    partial: Path,
    source: Source,
    shape: tuple[int, int],
    exact: bool,
    progress: Callable[[int, int], None] | None,
) -> None:
    geometry = np.empty((len(source), 2), dtype=np.int32)
    unreadable: list[tuple[int, str]] = []
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(source), *shape, 3)}
    with (partial / "images.npy").open("wb") as stream:  # plain writes: a full disk is an error here, not a SIGBUS
        np.lib.format.write_array_header_1_0(stream, header)
        for block in unpack(source, shape, exact):
            stream.write(block.images.data)
            geometry[block.start : block.stop] = block.geometry
            unreadable += block.unreadable
            if progress:
                progress(block.stop, len(source))
    np.save(partial / "geometry.npy", geometry, allow_pickle=False)
    about = {
        "version": VERSION,
        "source": source.name,
        "images": len(source),
        "shape": [*shape, 3],
        "images_bytes": (partial / "images.npy").stat().st_size,
        "images_sampled_sha256": _sampled_hash(partial / "images.npy"),
        "geometry_sha256": _hash((partial / "geometry.npy").read_bytes()),
        "unreadable": unreadable,
    }
    (partial / "store.json").write_text(json.dumps(about, indent=1), "utf-8")


def _put_in_place(partial: Path, folder: Path, count: int) -> None:
    try:
        partial.rename(folder)
    except OSError:  # something is there: either damaged, or another process was faster
        try:
            load(folder, count)
        except Damaged:
            shutil.rmtree(folder)
            partial.rename(folder)


def _remove_abandoned(folder: Path) -> None:
    for partial in folder.parent.glob(f".{folder.name}-*"):
        written = max((file.stat().st_mtime for file in (partial, *partial.glob("*"))), default=0.0)
        if time.time() - written > _STALE:
            shutil.rmtree(partial, ignore_errors=True)


def _sampled_hash(file: Path) -> str:
    size = file.stat().st_size
    total = hashlib.sha256()
    with file.open("rb") as stream:
        for start in np.linspace(0, max(0, size - _SAMPLE_BYTES), _SAMPLES).astype(np.int64):
            stream.seek(int(start))
            total.update(stream.read(_SAMPLE_BYTES))
    return total.hexdigest()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

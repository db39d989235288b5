"""Decoding a source into a store, so that it may end at any moment and go on at the next call.

A store is made in a hidden folder beside, under a lock, and renamed into place when it is complete. What an earlier
call left there, or in a damaged store, is hashed again, and stretches that are what was written are kept.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from compressl.data import cache
from compressl.data.journal import (
    GEOMETRY,
    IMAGES,
    JOURNAL,
    VERSION,
    Layout,
    Stretch,
    intact,
    offset,
    read_layout,
    read_stretches,
    written,
)
from compressl.data.origin import remember
from compressl.data.packing import Contents, unpack
from compressl.data.source import Source
from compressl.errors import CompresslWarning, ResourceError
from compressl.runs import take_lock

_POLL = 0.1  # seconds between attempts at a lock that another process holds
_PATIENCE = 10  # attempts before it is said, and between looks at how far the other is

Progress = Callable[[int, int], None]


def begun(folder: Path, fingerprint: str) -> Layout | None:
    """How images of this fingerprint were being packed when an earlier call ended, if one did."""
    found = read_layout(_beside(folder)) or read_layout(folder)
    return found if found is not None and (found.fingerprint, found.version) == (fingerprint, VERSION) else None


def room(folder: Path, layout: Layout) -> tuple[int, int]:
    """Bytes that a store needs beyond what an earlier call left, and those that are free for it."""
    place = next(parent for parent in folder.parents if parent.exists())
    there = 0
    for name in (IMAGES, GEOMETRY):
        with contextlib.suppress(FileNotFoundError):  # nothing is begun, or another process has finished it just now
            there += getattr((_beside(folder) / name).stat(), "st_blocks", 0) * 512
    return max(0, layout.nbytes - there), shutil.disk_usage(place).free


def write(folder: Path, source: Source, layout: Layout, progress: Progress | None = None) -> tuple[Contents, str]:
    """Decode a source into a store and map it; also what a user should hear of, or nothing.

    Another process that packs the same images is waited for, and what it made is used. A wait of more than a second is
    said, as a :class:`CompresslWarning`, and ``progress`` then counts what the other has written.

    Raises:
        ResourceError: if there is no room, or the folder cannot be written. What is packed by then is kept.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        waiting = _waiting(folder, source, progress)
        with alone(folder.with_name(f".{folder.name}.lock"), lambda: next(waiting)):
            note = ""
            if folder.exists():
                try:
                    return cache.load(folder, len(source)), ""
                except cache.Damaged as error:
                    note = f"The packed images in {folder} were damaged ({error})"
                    _take_apart(folder)
            needed, free = room(folder, layout)
            if needed > free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            partial = _beside(folder)
            kept = _open(partial, layout, progress)
            remember(partial, source, layout.fingerprint)
            done = sum(stop - start for start, stop in map(layout.range, kept))
            if note:
                note += f"; {layout.images - done:,} of {layout.images:,} images were decoded again."
            elif done:
                note = f"Continuing: {done:,} of {layout.images:,} images were packed before."
            _fill(partial, source, layout, kept, done, progress)
            _finish(partial, source, layout)
            partial.rename(folder)
            return cache.load(folder, len(source)), note
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                f"The packed images of {source.name} need {layout.nbytes / 1e9:.1f} GB, more than is free in "
                f"{folder.parent}.",
                "Free some space and run the same command again, which goes on where this one ended; or name another "
                "folder with COMPRESSL_CACHE.",
            ) from error
        raise ResourceError(
            f"The packed images of {source.name} cannot be written to {folder.parent}: {error.strerror or error}.",
            "Name another folder with COMPRESSL_CACHE.",
        ) from error


def _beside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


def _take_apart(folder: Path) -> None:
    """Make a damaged store one that is not finished yet."""
    shutil.rmtree(_beside(folder), ignore_errors=True)
    folder.rename(_beside(folder))


def _open(partial: Path, layout: Layout, progress: Progress | None) -> dict[int, Stretch]:
    """The stretches that are written and intact; files of the full size, with room for the others."""
    kept: dict[int, Stretch] = {}
    if read_layout(partial) == layout:
        with contextlib.suppress(OSError, ValueError, EOFError):  # then nothing of it is used
            kept = intact(partial, layout, read_stretches(partial), progress)
    if not kept:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _create(partial / IMAGES, "|u1", (layout.images, *layout.shape, 3))
        _create(partial / GEOMETRY, "<i4", (layout.images, 2))
    (partial / "store.json").unlink(missing_ok=True)
    lines = [layout.line(), *(stretch.line() for stretch in kept.values())]
    rewritten = partial / f"{JOURNAL}.new"  # without what was torn: the next line would be glued to it
    rewritten.write_text("".join(lines), "utf-8")
    rewritten.replace(partial / JOURNAL)
    return kept


def _create(file: Path, kind: str, shape: tuple[int, ...]) -> None:
    """A .npy file of zeros that takes no room yet."""
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        stream.truncate(stream.tell() + int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize)


def _fill(
    partial: Path, source: Source, layout: Layout, kept: dict[int, Stretch], done: int, progress: Progress | None
) -> None:
    missing = [layout.range(number) for number in range(layout.stretches) if number not in kept]
    at = {name: offset(partial / name) for name in (IMAGES, GEOMETRY)}
    with (  # plain writes, nothing mapped: a full disk is an error here, not a signal
        contextlib.closing(unpack(source, layout.shape, layout.exact, missing)) as decoded,
        (partial / IMAGES).open("r+b") as images,
        (partial / GEOMETRY).open("r+b") as geometry,
        (partial / JOURNAL).open("a", encoding="utf-8") as journal,
    ):
        for number, blocks in groupby(decoded, lambda block: block.start // layout.stretch):
            start, _ = layout.range(number)
            images.seek(at[IMAGES] + start * (layout.image_bytes - 8))
            geometry.seek(at[GEOMETRY] + start * 8)
            digests: list[bytes] = []
            unreadable: list[tuple[int, str]] = []
            for block in blocks:
                images.write(block.images.data)
                geometry.write(block.geometry.data)
                digests.append(block.digest)
                unreadable += block.unreadable
                done += block.stop - block.start
                if progress:
                    progress(done, layout.images)
            images.flush()
            geometry.flush()
            journal.write(Stretch.of(number, digests, unreadable).line())
            journal.flush()
        for stream in (images, geometry, journal):
            os.fsync(stream.fileno())


def _finish(partial: Path, source: Source, layout: Layout) -> None:
    stretches = read_stretches(partial)
    about = {
        "version": layout.version,
        "source": source.name,
        "images": layout.images,
        "shape": [*layout.shape, 3],
        "images_bytes": (partial / IMAGES).stat().st_size,
        "images_sampled_sha256": cache.sampled_hash(partial / IMAGES),
        "geometry_sha256": cache.file_hash(partial / GEOMETRY),
        "unreadable": [each for number in sorted(stretches) for each in stretches[number].unreadable],
    }
    (partial / "store.json").write_text(json.dumps(about, indent=1), "utf-8")


def _waiting(folder: Path, source: Source, progress: Progress | None) -> Iterator[None]:
    """What is done between attempts at the lock."""
    for _ in range(_PATIENCE):
        yield
    warnings.warn(
        f"Another process is packing the images of {source.name} in {folder.parent}: waiting for it.",
        CompresslWarning,
        stacklevel=2,
    )
    while True:
        if progress and (found := written(_beside(folder))):
            progress(*found)
        for _ in range(_PATIENCE):
            yield


@contextlib.contextmanager
def alone(file: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Wait until no other process is in a block of this name; ``waiting`` is called at each attempt that fails.

    The system frees the lock of a process that is gone.
    """
    while True:
        with file.open("a") as handle:
            while not take_lock(handle.fileno()):
                waiting()
                time.sleep(_POLL)
            if not file.exists() or not os.path.samestat(file.stat(), os.fstat(handle.fileno())):
                continue  # whoever held it has removed it: others would lock a new file
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # some systems remove no open file
                    file.unlink()
            return

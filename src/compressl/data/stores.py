"""What lies in the cache of packed images, and the removal of what nobody will ask for again."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressl.data import origin
from compressl.data.journal import GEOMETRY, IMAGES, JOURNAL, VERSION, read_layout
from compressl.data.origin import Origin
from compressl.data.writing import alone
from compressl.runs import take_lock

ABOUT = "store.json"
_FILES = (ABOUT, IMAGES, GEOMETRY, JOURNAL, f"{JOURNAL}.new", origin.FILE)  # what can be removed, in this order
_NAME = re.compile(r"(\.?)([A-Za-z0-9_-]+-[0-9a-f]{16}-\d+)(\.partial)?")
_KEYS = {"version", "source", "images_bytes", "images_sampled_sha256", "geometry_sha256"}  # of every store.json so far


class InUse(Exception):
    """Another process packs these images, or has them mapped, or asked for them just now."""


@dataclass(frozen=True)
class Stored:
    """A store in the cache, or what a packing that has not ended has left there."""

    folder: Path
    images: int | None  # None where the format no longer says
    nbytes: int
    origin: Origin | None
    finished: bool
    stale: str  # why nobody will ask for it again, or empty

    @property
    def name(self) -> str:
        """As the folder is called once it is finished."""
        return self.folder.name.removeprefix(".").removesuffix(".partial")


def survey(cache: Path) -> list[Stored]:
    """Every store in a cache, by name; whatever else lies there is passed over."""
    found = (_look(folder) for folder in sorted(cache.iterdir())) if cache.is_dir() else ()
    return [each for each in found if each is not None]


def remove(store: Stored) -> None:
    """Remove the files of a store, and its folder.

    Raises:
        InUse: another process packs into it, has it mapped, or has made it anew. Nothing is removed then.
        OSError: a file cannot be removed.
    """
    with alone(store.folder.with_name(f".{store.name}.lock"), _refuse):
        with contextlib.suppress(FileNotFoundError), (store.folder / IMAGES).open("rb") as handle:
            if not take_lock(handle.fileno()):
                raise InUse
        found = _look(store.folder)
        if found is None or not found.stale:
            raise InUse
        for name in (*_FILES, *_torn(store.folder)):
            (store.folder / name).unlink(missing_ok=True)
        store.folder.rmdir()


def _look(folder: Path) -> Stored | None:
    """None for what is no store of ours, beyond doubt: its name, its files and its own words must all say so."""
    named = _NAME.fullmatch(folder.name)
    if named is None or bool(named[1]) != bool(named[3]) or folder.is_symlink() or not folder.is_dir():
        return None
    try:
        files = list(folder.iterdir())
        known = {*_FILES, *_torn(folder)}
        if any(file.name not in known or file.is_symlink() or not file.is_file() for file in files):
            return None
        nbytes = sum(getattr(file.stat(), "st_blocks", 0) * 512 or file.stat().st_size for file in files)
    except OSError:  # it may not be read, or is being finished just now
        return None
    layout, about = read_layout(folder), _about(folder)
    if layout is None and about is None:
        return None
    version = int(about["version"]) if about is not None else layout.version if layout is not None else VERSION
    came = origin.recall(folder)
    stale = ""
    if version < VERSION:
        stale = "its format is that of an older version"
    elif version == VERSION and came is not None and (fate := came.fate()) in ("gone", "changed"):
        stale = "its source is gone" if fate == "gone" else "its source has changed since"
    images = None if layout is None else layout.images
    return Stored(folder, images, nbytes, came, not named[3] and about is not None, stale)


def _about(folder: Path) -> dict[str, Any] | None:
    try:
        about = json.loads((folder / ABOUT).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) and about.keys() >= _KEYS and isinstance(about["version"], int) else None


def _torn(folder: Path) -> list[str]:
    """What a note of the source was when its process ended while writing it."""
    return [file.name for file in folder.glob(f".{origin.FILE}.*.tmp")]


def _refuse() -> None:
    raise InUse

"""Where packed images came from: kept beside them, to tell later whether that is still there and still the same."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from compressl.data.arrays import ArraySource, load
from compressl.data.folder import FolderSource
from compressl.data.parquet import ParquetSource
from compressl.data.source import Source, Subset, labels_optional
from compressl.data.tar import TarSource
from compressl.errors import DataError, ResourceError
from compressl.files import write_atomically

FILE = "source.json"
Fate = Literal["there", "gone", "changed", "unknown"]


@dataclass(frozen=True)
class Origin:
    """A whole collection as it was last packed, or last used.

    ``kind`` is "folder", "array", "parquet" or "tar"; or "" for what has no place of its own, such as an array in
    memory. ``files`` are those of Parquet and tar: one that comes to a folder of them is another data set, unseen here.
    """

    name: str
    kind: str = ""
    root: str = ""
    files: tuple[str, ...] = ()
    fingerprint: str = ""

    @property
    def place(self) -> str:
        """Where it lies, in words."""
        return (self.files[0] if len(self.files) == 1 else self.root) or f"{self.name}, which has no place of its own"

    def fate(self) -> Fate:
        """What has become of it; "unknown" where nobody can say, as without permission to look."""
        if not self.kind:
            return "unknown"
        try:
            for place in self.files or (self.root,):
                Path(place).stat()
            with labels_optional():
                return "there" if self._opened().fingerprint() == self.fingerprint else "changed"
        except (FileNotFoundError, NotADirectoryError):
            return "gone"
        except DataError as error:  # another kind of thing stands in its place, unless it may not be looked at
            reason = error.__cause__
            hidden = isinstance(reason, OSError) and not isinstance(reason, NotADirectoryError)
            return "unknown" if hidden else "changed"
        except OSError:
            return "unknown"

    def _opened(self) -> Source:
        root, files = Path(self.root), [Path(file) for file in self.files]
        if self.kind == "folder":
            return FolderSource(root, self.name)
        if self.kind == "array":
            return ArraySource(load(root), name=self.name)
        return (ParquetSource if self.kind == "parquet" else TarSource)(root, files, self.name)


def origin_of(source: Source, fingerprint: str) -> Origin:
    """Where the whole of a source of this fingerprint lies.

    >>> origin_of(ArraySource(np.zeros((2, 4, 5), np.uint8), name="toy"), "0123")
    Origin(name='toy', kind='', root='', files=(), fingerprint='')
    """
    whole = source
    while isinstance(whole, Subset):
        whole = whole.source
        fingerprint = whole.fingerprint()
    if isinstance(whole, FolderSource):
        return Origin(whole.name, "folder", str(whole.root.resolve()), (), fingerprint)
    if isinstance(whole, ArraySource) and isinstance(whole.images, np.memmap) and whole.images.filename:
        return Origin(whole.name, "array", str(Path(whole.images.filename).resolve()), (), fingerprint)
    if isinstance(whole, ParquetSource | TarSource):
        files = [file.absolute() for file in whole.files]
        root = Path(files[0].as_posix().removesuffix(whole.shown[0]))
        kind = "parquet" if isinstance(whole, ParquetSource) else "tar"
        return Origin(whole.name, kind, str(root), tuple(str(file) for file in files), fingerprint)
    return Origin(whole.name)


def remember(folder: Path, source: Source, fingerprint: str) -> None:
    """Note beside packed images where they came from; nothing where that cannot be written."""
    content = json.dumps(asdict(origin_of(source, fingerprint)))
    with contextlib.suppress(OSError, ResourceError):
        if not (folder / FILE).exists() or (folder / FILE).read_text("utf-8") != content:
            write_atomically(folder / FILE, content)


def recall(folder: Path) -> Origin | None:
    """What :func:`remember` noted; None where nothing was, or nothing that can be read."""
    try:
        about = json.loads((folder / FILE).read_text("utf-8"))
        return Origin(**about | {"files": tuple(about["files"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None

"""What is where in tar files: found once by reading their headers, so that any image can be read alone."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from compressl.data.cache import default_cache
from compressl.data.decode import extensions
from compressl.data.source import digest
from compressl.errors import CompresslError, DataError
from compressl.files import write_atomically

VERSION = 1  # raise it when an index holds something else
KEPT_AFTER = 5.0  # seconds of reading headers after which the index is kept on disk
NO_LABEL, BAD_LABEL = b"", b"?"
_LABEL_BYTES = 2**20  # a larger .cls or .json is no label
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True)
class Index:
    """The images of several tar files, in their order; N of them."""

    shard: NDArray[np.int32]  # [N]: number of the file
    offset: NDArray[np.int64]  # [N]: where the image begins in it
    size: NDArray[np.int64]  # [N], in bytes
    name: NDArray[np.bytes_]  # [N]: of the member
    label: NDArray[np.bytes_]  # [N]: as JSON; NO_LABEL where there is none, BAD_LABEL where it cannot be read

    def __len__(self) -> int:
        return len(self.offset)


def read_index(files: Sequence[Path], shown: Sequence[str]) -> Index:
    """The index of some files, made or, where that took long, kept from an earlier time.

    Raises:
        DataError: naming the file that is damaged or compressed, and the last member before the damage.
    """
    stamps = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    kept = default_cache() / f"tar-{digest([(VERSION,), *stamps])}.npz"
    unusable = (OSError, ValueError, KeyError, EOFError, BadZipFile)
    with contextlib.suppress(*unusable), np.load(kept, allow_pickle=False) as arrays:
        return Index(**{each.name: arrays[each.name] for each in fields(Index)})
    began = time.perf_counter()
    parts = [_scan(file, shown[number], number) for number, file in enumerate(files)]
    index = Index(**{each.name: np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Index)})
    if time.perf_counter() - began > KEPT_AFTER:
        stream = io.BytesIO()
        np.savez(stream, **{each.name: getattr(index, each.name) for each in fields(Index)})
        with contextlib.suppress(OSError, CompresslError):  # it is a convenience: where it cannot be kept, it is made
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, stream.getvalue())
    return index


def _scan(file: Path, shown: str, number: int) -> Index:
    images: list[tuple[str, int, int, str]] = []  # name, offset, size, key
    labels: dict[str, bytes] = {}
    last = ""
    try:
        with file.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
                last = member.name
                folder, _, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                if not member.isreg() or not stem:  # a folder, a link, a hidden file
                    continue
                key = f"{folder}/{stem}"
                if f".{ending.lower()}" in extensions():
                    if member.issparse():
                        raise tarfile.ReadError("it is stored with holes")
                    images.append((member.name, member.offset_data, member.size, key))
                elif ending in ("cls", "json") and member.size <= _LABEL_BYTES:
                    stream.seek(member.offset_data)
                    label = _label(ending, stream.read(member.size))
                    if label != NO_LABEL or key not in labels:
                        labels[key] = label
            stream.seek(tar.offset)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes all of this for an end
                raise tarfile.ReadError("it is cut off, or a header is not one")
    except (tarfile.TarError, OSError) as error:
        _refuse_compressed(file, shown)
        where = f"behind its member {last}" if last else "at its beginning"
        raise DataError(f"{shown} is damaged {where}: {error}.", "Fetch or write the file again.") from error
    return Index(
        shard=np.full(len(images), number, dtype=np.int32),
        offset=np.array([offset for _, offset, _, _ in images], dtype=np.int64),
        size=np.array([size for _, _, size, _ in images], dtype=np.int64),
        name=np.array([name.encode("utf-8", "surrogateescape") for name, _, _, _ in images], dtype=np.bytes_),
        label=np.array([labels.get(key, NO_LABEL) for _, _, _, key in images], dtype=np.bytes_),
    )


def _refuse_compressed(file: Path, shown: str) -> None:
    with contextlib.suppress(OSError), file.open("rb") as stream:
        start = stream.read(8)
        for magic, kind in _COMPRESSED.items():
            if start.startswith(magic):
                raise compressed(shown, kind)


def compressed(shown: str, kind: str = "") -> DataError:
    """The sentence for a compressed tar file."""
    return DataError(
        f"{shown} is compressed{f' ({kind})' if kind else ''}: single images cannot be read from the middle of it.",
        "Decompress it to a .tar (images gain nothing by it: gunzip, say), or extract it and give the folder.",
    )


def _label(ending: str, data: bytes) -> bytes:
    """The label in a ``.cls`` or ``.json`` member, as JSON.

    >>> _label("cls", b"7"), _label("cls", b"cat"), _label("json", b'{"label": 3}'), _label("json", b"{}")
    (b'7', b'"cat"', b'3', b'')
    """
    try:
        text = data.decode().strip()
        value: Any
        if ending == "json":
            about = json.loads(text)
            value = about.get("label") if isinstance(about, dict) else None
        else:
            value = int(text) if text.lstrip("-").isdigit() else text
    except ValueError:
        return BAD_LABEL
    if value is None:
        return NO_LABEL
    good = isinstance(value, int | str) and not isinstance(value, bool) and value != ""
    return json.dumps(value).encode() if good else BAD_LABEL

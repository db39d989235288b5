"""Tar files in the WebDataset layout, read where they are: nothing is extracted.

A member ``key.jpg`` (or of another image format) is an image; ``key.cls`` (an integer, or text) or ``key.json``
(``{"label": ...}``) of the same key is its label. The key is the path up to the first dot of the file's name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from compressl.data.decode import LIMITS, UnreadableImage
from compressl.data.source import LabelError, Labels, checked_labels, digest, if_usable
from compressl.data.tar_index import BAD_LABEL, NO_LABEL, read_index
from compressl.errors import DataError


class TarSource:
    """Images of one or several tar files, in the order given and, within a file, in its own.

    Raises:
        DataError: for a damaged or compressed file, naming it, or where there are no images.
    """

    def __init__(self, root: Path, files: Sequence[Path], name: str) -> None:
        self.name = name
        self.note = ""
        self.files = list(files)
        self.shown = [file.relative_to(root).as_posix() if file != root else file.name for file in self.files]
        self._index = read_index(self.files, self.shown)
        if len(self) == 0:
            raise DataError(
                f"{root} holds no images.", "Give tar files with members such as 000123.jpg, .png or .webp."
            )
        self.labels: Labels | None
        self.class_names: list[str] | None
        nothing: tuple[Labels | None, list[str] | None] = (None, None)
        self.labels, self.class_names = if_usable(self._read_labels, nothing)

    def __len__(self) -> int:
        return len(self._index)

    def read(self, index: int) -> bytes:
        size = int(self._index.size[index])
        if size > LIMITS.file_bytes:
            raise UnreadableImage(f"{size} bytes are more than the {LIMITS.file_bytes} allowed")
        # a handle of its own: any thread may read, and thousands of files need not be open at once
        with self.files[self._index.shard[index]].open("rb", buffering=0) as stream:
            stream.seek(int(self._index.offset[index]))
            data: bytes = stream.read(size)
            return data

    def describe(self, index: int) -> str:
        return f"{self.shown[self._index.shard[index]]} member {_text(self._index.name[index])}"

    def fingerprint(self) -> str:
        files = [(shown, file.stat().st_size) for shown, file in zip(self.shown, self.files, strict=True)]
        members = hashlib.sha256(np.char.str_len(self._index.name).tobytes())  # which keep the names apart
        for column in (self._index.name, self._index.size):
            members.update(np.ascontiguousarray(column).tobytes())
        return digest([*files, (members.hexdigest(),)])

    def _read_labels(self) -> tuple[Labels | None, list[str] | None]:
        kinds, which = np.unique(self._index.label, return_inverse=True)
        if list(kinds) == [NO_LABEL]:
            return None, None
        for problem, words in ((NO_LABEL, "has no label, unlike others"), (BAD_LABEL, "has a label of no known form")):
            if problem in kinds:
                bad = int(np.argmax(self._index.label == problem))
                raise LabelError(
                    f"{self.describe(bad)} {words}.",
                    'Give each image a .cls with an integer or a .json with {"label": ...}, or give none to all.',
                )
        values = [json.loads(kind) for kind in kinds]
        if all(isinstance(value, int) for value in values):
            return checked_labels(np.array(values, dtype=np.int64)[which], None, self.name), None
        if not all(isinstance(value, str) for value in values):
            raise LabelError(f"{self.name} has labels in words and in numbers.", "Give one kind of them.")
        names = sorted(values)
        numbers = np.array([names.index(value) for value in values], dtype=np.int64)
        return checked_labels(numbers[which], names, self.name), names


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")

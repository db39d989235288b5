"""A folder of image files, nested as its owner likes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from compressl.data.decode import LIMITS, UnreadableImage, extensions
from compressl.data.names import Names
from compressl.data.source import Family, digest
from compressl.errors import DataError

TRAIN_NAMES = ("train",)
TEST_NAMES = ("test", "val", "valid", "validation")  # the first that is there is the test part


class FolderSource:
    """Every image file below a folder, sorted by its path relative to it.

    Hidden files and folders are passed over; a folder reached twice, through links, is read once. If every image lies
    in a sub-folder and there are at least two of them, the first-level sub-folders are the classes.

    Raises:
        DataError: if the folder cannot be listed or holds no images.
    """

    def __init__(self, root: Path, name: str | None = None) -> None:
        self.root = root
        self.name = name or root.resolve().name
        self.note = ""
        files = sorted((path, size) for path, size in walk(root) if _ending(path) in extensions())
        if not files:
            raise DataError(
                f"{root} holds no images.", "Give a folder with image files such as .jpg, .png or .webp, at any depth."
            )
        self.paths = Names(path for path, _ in files)
        self.sizes = np.array([size for _, size in files], dtype=np.int64)
        self.class_names: list[str] | None = None
        self.labels = None
        first = [path.split("/", 1)[0] if "/" in path else "" for path, _ in files]
        classes = sorted(set(first))
        if "" not in classes and len(classes) >= 2:
            self.class_names = classes
            number = {name: label for label, name in enumerate(classes)}
            self.labels = np.array([number[name] for name in first], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> bytes:
        if self.sizes[index] > LIMITS.file_bytes:
            raise UnreadableImage(f"{self.sizes[index]} bytes are more than the {LIMITS.file_bytes} allowed")
        return (self.root / self.paths[index]).read_bytes()

    def describe(self, index: int) -> str:
        return self.paths[index]

    def fingerprint(self) -> str:
        return digest(zip(self.paths, self.sizes.tolist(), strict=True))


def folder_family(root: Path) -> Family:
    """The folder as it is, or its sub-folders ``train`` and ``test`` (or ``val``, ``valid``, ``validation``)."""
    children = {child.name.lower(): child for child in sorted(root.iterdir()) if child.is_dir()}
    train = next((children[name] for name in TRAIN_NAMES if name in children), None)
    test = next((children[name] for name in TEST_NAMES if name in children), None)
    name = root.resolve().name
    if train is None or test is None:
        return Family({"all": lambda: FolderSource(root)})
    return Family(
        {
            "train": lambda: FolderSource(train, f"{name}-{train.name}"),
            "test": lambda: FolderSource(test, f"{name}-{test.name}"),
        },
        how=f"the folders {train.name}/ and {test.name}/",
    )


def walk(root: Path) -> Iterator[tuple[str, int]]:
    """(path relative to ``root`` with forward slashes, size in bytes) of each file that is not hidden.

    A link that leads nowhere is listed too, so that it is named as unreadable rather than lost.

    Raises:
        DataError: if a folder cannot be listed.
    """
    seen: set[tuple[int, int]] = set()
    folders = [(str(root), "")]
    while folders:
        folder, prefix = folders.pop()
        try:
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue  # a link back to a folder that was read: following it again would never end
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            reason = error.strerror or str(error)
            raise DataError(
                f"The folder {folder} cannot be listed: {reason}.", "Change its permissions or give another folder."
            ) from error
        below = []
        names = {entry.name for entry in entries}
        if prefix and {"run.json", "metrics.jsonl"} <= names:
            continue  # a run of ours, kept beside the images that it learns from: its pictures are none of them
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                below.append((entry.path, f"{prefix}{entry.name}/"))
            elif entry.is_file():
                yield prefix + entry.name, entry.stat().st_size
            elif entry.is_symlink() and not Path(entry.path).exists():
                yield prefix + entry.name, 0
        folders.extend(reversed(below))


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 - a Path per file is slow for millions

"""Collections in several files of one kind, and which of them are for training or for testing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from compressl.data.source import Family, Source

_PARTS = ("train", "test", "validation", "valid", "val")


def shard_family(root: Path, files: Sequence[Path], make: Callable[[Path, Sequence[Path], str], Source]) -> Family:
    """Files, or their folders, whose names begin with ``train`` and ``test`` (``val``, ``valid``, ``validation``).

    ``make(root, files, name)`` opens some of them as one source.
    """
    name = root.resolve().name
    named = {kind: [file for file in files if part_of(file.relative_to(root)) == kind] for kind in _PARTS}
    test = next((kind for kind in _PARTS[1:] if named[kind]), None)
    if test is None or not named["train"]:
        return Family({"all": lambda: make(root, files, name)})
    ending = files[0].suffix.lower()
    return Family(
        {
            "train": lambda: make(root, named["train"], f"{name}-train"),
            "test": lambda: make(root, named[test], f"{name}-{test}"),
        },
        how=f"the files train*{ending} and {test}*{ending}",
    )


def part_of(file: Path) -> str | None:
    """The part that a file belongs to by its name, if it says so.

    >>> [part_of(Path(file)) for file in ("train-00000-of-00003.parquet", "val/0.tar", "values.parquet")]
    ['train', 'val', None]
    """
    for step in file.parts:
        for part in _PARTS:
            if re.match(rf"{part}(?![a-z])", step.lower()):
                return part
    return None

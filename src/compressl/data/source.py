"""What every collection of images looks like from above: a list that can be indexed from any thread."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from compressl import randomness
from compressl.data.decode import Pixels
from compressl.errors import DataError

Labels = NDArray[np.int64]
T = TypeVar("T")

TEST_SHARE = 0.2  # of a source without a split of its own


class Source(Protocol):
    """An indexable collection of images. ``read`` may be called from several threads at once.

    ``labels`` is int64 [N], each at least 0, or None; ``class_names[label]`` is the class in words, where known;
    ``note`` says in a sentence what a user would not expect of it (that only ``train/`` is read, say), or is empty.
    """

    name: str
    labels: Labels | None
    class_names: list[str] | None
    note: str

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes | Pixels:
        """Encoded bytes, or decoded pixels uint8 [height, width, 3]. Raises OSError or UnreadableImage."""
        ...

    def describe(self, index: int) -> str:
        """What to call this image in a message: its path, or its file and row."""
        ...

    def fingerprint(self) -> str:
        """A hash of the sorted names and sizes: it changes when an image is added, removed, renamed or resized."""
        ...


@dataclass(frozen=True)
class Family:
    """What a spec stands for before a split is chosen: ``parts`` is {"all": open} or {"train": open, "test": open}."""

    parts: Mapping[str, Callable[[], Source]]
    how: str = ""  # how the source itself tells train from test, in words

    @property
    def has_split(self) -> bool:
        return "train" in self.parts


class Subset:
    """Some images of a source, in a given order.

    >>> from compressl.data.arrays import ArraySource
    >>> whole = ArraySource(np.zeros((4, 2, 2, 3), np.uint8), labels=np.array([0, 1, 0, 1]), name="toy")
    >>> part = Subset(whole, np.array([3, 0]), "toy-part")
    >>> len(part), part.labels.tolist(), part.describe(0)
    (2, [1, 0], 'toy entry 3')
    """

    def __init__(self, source: Source, indices: NDArray[np.int64], name: str, note: str = "") -> None:
        self.source = source
        self.indices = indices
        self.name = name
        self.note = note
        self.labels = None if source.labels is None else source.labels[indices]
        self.class_names = source.class_names

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> bytes | Pixels:
        return self.source.read(int(self.indices[index]))

    def describe(self, index: int) -> str:
        return self.source.describe(int(self.indices[index]))

    def fingerprint(self) -> str:
        chosen = hashlib.sha256(np.ascontiguousarray(self.indices, dtype="<i8").tobytes()).hexdigest()
        return digest([("source", self.source.fingerprint()), ("indices", chosen)])


def stratified(labels: Labels | None, count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of a train and a test part, both sorted: :data:`TEST_SHARE` of each class, rounded, is the test part.

    >>> train, test = stratified(np.array([0] * 10 + [1] * 5), 15, seed=0)
    >>> len(train), (test < 10).sum().item(), (test >= 10).sum().item()
    (12, 2, 1)
    """
    groups = [np.arange(count)] if labels is None else [np.flatnonzero(labels == each) for each in np.unique(labels)]
    chosen = []
    for number, group in enumerate(groups):
        order = torch.randperm(len(group), generator=randomness.generator("split", seed, number))
        shuffled = group[order.numpy()]
        chosen.append(shuffled[: round(TEST_SHARE * len(group))])
    test = np.sort(np.concatenate(chosen)).astype(np.int64)
    return np.setdiff1d(np.arange(count, dtype=np.int64), test), test


def digest(entries: Iterable[tuple[object, ...]]) -> str:
    """A short hash of names and sizes, in the order given.

    >>> digest([("a.png", 3), ("b.png", 4)]) == digest([("a.png", 3), ("b.png", 5)])
    False
    """
    total = hashlib.sha256()
    for entry in entries:
        total.update(repr(entry).encode("utf-8", "surrogateescape") + b"\n")
    return total.hexdigest()[:32]


class LabelError(DataError):
    """Labels that cannot be used; a pretraining, which needs none, goes on without them."""


_IGNORED: ContextVar[list[str] | None] = ContextVar("what is wrong with labels that nobody needs", default=None)


@contextmanager
def labels_optional() -> Iterator[list[str]]:
    """Within it, unusable labels are left out; the list then says what is wrong with them."""
    problems: list[str] = []
    token = _IGNORED.set(problems)
    try:
        yield problems
    finally:
        _IGNORED.reset(token)


def if_usable(read: Callable[[], T], otherwise: T) -> T:
    """What ``read`` gives, or ``otherwise`` for unusable labels within :func:`labels_optional`.

    Raises:
        LabelError: for unusable labels elsewhere.

    >>> with labels_optional() as problems:
    ...     if_usable(lambda: checked_labels(np.array([0, -1]), None, "a.npy"), None)
    >>> problems
    ['a.npy: row 1 has the label -1.']
    """
    try:
        return read()
    except LabelError as error:
        problems = _IGNORED.get()
        if problems is None:
            raise
        problems.append(error.problem)
        return otherwise


def checked_labels(labels: NDArray[np.int64], class_names: list[str] | None, where: str) -> Labels | None:
    """The labels, or None where every one is -1 (a test set published without its answers).

    Raises:
        LabelError: for labels that are partly missing or outside the class names.

    >>> checked_labels(np.array([-1, -1]), None, "test.parquet") is None
    True
    """
    if len(labels) == 0 or bool((labels == -1).all()):
        return None
    if labels.min() < 0:
        bad = int(np.argmax(labels < 0))
        raise LabelError(
            f"{where}: row {bad} has the label {int(labels[bad])}.",
            "Labels are integers from 0; give every image one, or remove the labels.",
        )
    if class_names is not None and labels.max() >= len(class_names):
        bad = int(np.argmax(labels >= len(class_names)))
        raise LabelError(
            f"{where}: row {bad} has the label {int(labels[bad])}, but there are {len(class_names)} class names.",
            "Correct the label or the class names.",
        )
    return np.ascontiguousarray(labels, dtype=np.int64)

"""Very many names, in little more memory than their letters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import overload

import numpy as np


class Names(Sequence[str]):
    """A list of strings that does not grow. Python's own takes 60 bytes beside each: ten million would be 600 MB.

    >>> names = Names(["a.png", "žába.png", ""])
    >>> names[1], names[-1], list(names[:2]), len(names)
    ('žába.png', '', ['a.png', 'žába.png'], 3)
    """

    def __init__(self, names: Iterable[str]) -> None:
        letters = [name.encode("utf-8", "surrogateescape") for name in names]  # a file's name may be any bytes
        self._letters = b"".join(letters)
        self._ends = np.fromiter(accumulate(map(len, letters), initial=0), np.int64, len(letters) + 1)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]  # an IndexError where a list would raise one
        return self._letters[self._ends[i] : self._ends[i + 1]].decode("utf-8", "surrogateescape")

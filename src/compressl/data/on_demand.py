"""Images that are decoded each time they are asked for, where a store would be too large."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from compressl.data.decode import Pixels, UnreadableImage
from compressl.data.journal import Layout
from compressl.data.packing import read, too_many_unreadable, workers
from compressl.data.source import Source
from compressl.errors import CompresslWarning, DataError

_SHOWN = 5  # unreadable images that are warned of, each once


class OnDemand:
    """What stands in :class:`compressl.data.PackedImages` for the rows of a store; its batches are the same to the bit.

    An unreadable image is found when it is decoded. The next readable one takes its place, as in a store, with its own
    pixels and shape; but nothing is known of it before, so it is not left out, and keeps the label that it was given.

    >>> from compressl.data.arrays import ArraySource
    >>> source = ArraySource(np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1))
    >>> images = OnDemand(source, Layout(source.fingerprint(), 3, 1, 1, exact=True), max_unreadable=0.0)
    >>> pixels, geometry = images.gather(np.arange(3), np.array([2, 0]))
    >>> pixels[:, 0, 0, 0].tolist(), geometry.tolist()
    ([2, 0], [[1, 1], [1, 1]])
    """

    def __init__(self, source: Source, layout: Layout, max_unreadable: float) -> None:
        self.shape = (layout.images, *layout.shape, 3)
        self.nbytes = int(np.prod(self.shape, dtype=np.int64))
        self.unreadable: dict[int, str] = {}  # entry of the source -> reason, as far as it was found
        self._source, self._layout, self._max_unreadable = source, layout, max_unreadable
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(workers(), thread_name_prefix="compressl-decode")  # starts none before its use

    def __len__(self) -> int:
        return self.shape[0]

    def gather(self, rows: NDArray[np.int64], entries: NDArray[np.int64]) -> tuple[Pixels, NDArray[np.int32]]:
        """Entries of ``rows``, which are positions in the source: uint8 [B, H, W, 3] and geometry int32 [B, 2].

        Raises:
            DataError: more images than tolerated have turned out to be unreadable.
        """
        images = np.empty((len(entries), *self.shape[1:]), dtype=np.uint8)
        geometry = np.empty((len(entries), 2), dtype=np.int32)

        def fill(position: int) -> None:
            for step in range(len(rows)):
                row = int(rows[(entries[position] + step) % len(rows)])
                try:
                    pixels, size = read(self._source, row, self._layout.shape, self._layout.exact)
                except UnreadableImage as error:
                    self._record(row, str(error))
                else:
                    images[position], geometry[position] = pixels, size
                    return
            raise DataError(
                f"None of these {len(rows)} images of {self._source.name} is readable.", "Mend them or choose others."
            )

        for _ in self._pool.map(fill, range(len(entries))):
            pass
        return images, geometry

    def _record(self, row: int, reason: str) -> None:
        with self._lock:
            if row in self.unreadable:
                return
            self.unreadable[row] = reason
            found = sorted(self.unreadable.items())
        if len(found) > self._max_unreadable * len(self):
            raise too_many_unreadable(self._source, found, self._max_unreadable)
        if len(found) <= _SHOWN:
            name = self._source.describe(row)
            warnings.warn(
                f"{name} is unreadable ({reason}); its neighbour takes its place.", CompresslWarning, stacklevel=2
            )

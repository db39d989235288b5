"""Every image decoded once, into one packed array that crops can be drawn from without touching a decoder again.

If all images have one size of at most 64 pixels a side, or of at most S, the array keeps it exactly. Otherwise each
image is squashed to S x S, where S is 8/7 of the view's size rounded up to a multiple of 16 (224 -> 256, 96 -> 112), or
the longest side of the largest image where that is less. The true height and width are kept beside, so that a crop
can be drawn in original pixels and no shape is lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compressl.data import cache as disk
from compressl.data import writing
from compressl.data.decode import Pixels
from compressl.data.journal import Layout
from compressl.data.on_demand import OnDemand
from compressl.data.origin import remember
from compressl.data.packing import Contents, plan, too_many_unreadable, unpack
from compressl.data.parquet import CACHE_BYTES, ParquetSource
from compressl.data.source import Labels, Source, Subset
from compressl.errors import DataError

MAX_UNREADABLE = 0.01  # share of the images that may be unreadable before the work stops
IN_MEMORY_BYTES = 64 * 2**20  # a smaller store is not worth a place on disk

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PackedImages:
    """N images in M rows. ``rows[i]`` is the row of entry i; an unreadable entry uses that of the next readable one,
    wrapping around, and takes its geometry and label, so that pixels, shape and label always belong together.
    """

    images: Pixels | OnDemand  # uint8 [M, S, S, 3] or [M, H, W, 3]: in memory, mapped from disk, or decoded when asked
    rows: NDArray[np.int64]  # [N], in 0..M-1
    geometry: NDArray[np.int32]  # [N, 2]: original height and width in pixels; zeros where images are not yet decoded
    readable: NDArray[np.bool_]  # [N]
    labels: Labels | None  # int64 [N]
    class_names: list[str] | None
    unreadable: list[tuple[str, str]]  # (name, reason) of each unreadable image
    fingerprint: str
    source: Source = field(repr=False)
    origin: NDArray[np.int64] = field(repr=False)  # [N]: position of each entry in the source
    note: str = ""  # what happened that a user should hear of, or empty

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def on_demand(self) -> bool:
        """Whether images are decoded each time they are asked for."""
        return isinstance(self.images, OnDemand)

    def name(self, index: int) -> str:
        """What to call entry ``index`` in a message."""
        return self.source.describe(int(self.origin[index]))

    def gather(self, indices: NDArray[np.int64]) -> tuple[Pixels, NDArray[np.int32]]:
        """Copies of some entries: images uint8 [B, H, W, 3] and geometry int32 [B, 2]."""
        if isinstance(self.images, OnDemand):
            return self.images.gather(self.rows, indices)
        return np.asarray(self.images[self.rows[indices]]), self.geometry[indices]

    def subset(self, indices: NDArray[np.int64]) -> PackedImages:
        """Some entries, in the order given; the pixels are shared. An unreadable entry is replaced from within.

        Raises:
            DataError: if none of them is readable.
        """
        origin, readable = self.origin[indices], self.readable[indices]
        chosen = np.asarray(indices)[_replacement(readable, self.source.name)]
        return replace(
            self,
            rows=self.rows[chosen],
            geometry=self.geometry[chosen],
            readable=readable,
            labels=None if self.labels is None else self.labels[chosen],
            unreadable=[(self.source.describe(int(i)), self._reasons[int(i)]) for i in origin[~readable]],
            origin=origin,
        )

    @property
    def fingerprints(self) -> set[str]:
        """Of these images, and of the whole collections that they are parts of."""
        found, source = {self.fingerprint}, self.source
        while isinstance(source, Subset):
            source = source.source
            found.add(source.fingerprint())
        return found

    @property
    def _reasons(self) -> dict[int, str]:
        bad = self.origin[~self.readable]
        return {int(i): reason for i, (_, reason) in zip(bad, self.unreadable, strict=True)}


def pack(
    source: Source,
    *,
    view_size: int,
    cache: Path | None,
    progress: Progress | None = None,
    max_unreadable: float = MAX_UNREADABLE,
    keep: Literal["auto", "yes", "no"] = "yes",
) -> PackedImages:
    """Decode a source, or reuse the copy that an earlier call left in ``cache``; a copy that is not complete, or
    damaged, is completed.

    With ``keep="no"`` nothing is kept: images are decoded each time they are asked for, to the same bits
    (:class:`compressl.data.on_demand.OnDemand`). "auto" does so where the disk has no room, and the note says it.
    Stores of less than 64 MiB, and all of them with ``cache=None``, stay in memory. ``progress(done, total)`` is
    called from this thread as images are decoded.

    Raises:
        DataError: for fewer than two images, or more unreadable ones than ``max_unreadable`` of them.
        ResourceError: if the disk has no room for the store; what is packed by then is kept for the next call.

    >>> from compressl.data.arrays import ArraySource
    >>> packed = pack(ArraySource(np.zeros((3, 8, 8), np.uint8)), view_size=8, cache=None)
    >>> packed.images.shape, packed.geometry[0].tolist(), packed.rows.tolist()
    ((3, 8, 8, 3), [8, 8], [0, 1, 2])
    """
    if len(source) < 2:
        raise DataError(
            f"{source.name} has {len(source)} image{'s' * (len(source) != 1)}; at least two are needed.",
            "Give more images.",
        )
    side = side_for(view_size)
    fingerprint = source.fingerprint()
    folder = None if cache is None else disk.folder(cache, source.name, fingerprint, side)
    if keep != "no" and folder is not None and folder.exists():
        with contextlib.suppress(disk.Damaged):  # it is mended below, and the note says why
            contents = disk.load(folder, len(source))
            remember(folder, source, fingerprint)  # it may have moved
            return _packed(source, fingerprint, contents, max_unreadable, "")
    layout = None if folder is None else writing.begun(folder, fingerprint)
    if layout is None:
        (height, width), exact = plan(source, side)
        layout = Layout(fingerprint, len(source), height, width, exact)
    if keep == "no":
        return _on_demand(source, layout, max_unreadable, "")
    if keep == "auto" and folder is not None and layout.nbytes >= IN_MEMORY_BYTES:
        needed, free = writing.room(folder, layout)
        if needed > free:
            note = (
                f"The packed images of {source.name} would take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are "
                f"free in {folder.parent}: they are decoded again in every epoch, which is slower. To pack them, free "
                "some space or name another folder with --data.cache."
            )
            return _on_demand(source, layout, max_unreadable, note)
    if folder is None or layout.nbytes < IN_MEMORY_BYTES:
        contents, note = _in_memory(source, layout, progress), ""
    else:
        contents, note = writing.write(folder, source, layout, progress)
    return _packed(source, fingerprint, contents, max_unreadable, note)


def side_for(view_size: int) -> int:
    """S: the side of a packed image that views of ``view_size`` pixels are drawn from.

    >>> side_for(224), side_for(96), side_for(32)
    (256, 112, 48)
    """
    return -(-8 * view_size // (7 * 16)) * 16


def _in_memory(source: Source, layout: Layout, progress: Progress | None) -> Contents:
    images = np.empty((len(source), *layout.shape, 3), dtype=np.uint8)
    geometry = np.empty((len(source), 2), dtype=np.int32)
    unreadable = []
    for block in unpack(source, layout.shape, layout.exact):
        images[block.start : block.stop] = block.images
        geometry[block.start : block.stop] = block.geometry
        unreadable += block.unreadable
        if progress:
            progress(block.stop, len(source))
    return Contents(images, geometry, unreadable)


def _on_demand(source: Source, layout: Layout, max_unreadable: float, note: str) -> PackedImages:
    whole = source
    while isinstance(whole, Subset):
        whole = whole.source
    if isinstance(whole, ParquetSource) and whole.nbytes > CACHE_BYTES:
        note += (
            f" Each image of {source.name} costs the reading of a row group of Parquet, of which {CACHE_BYTES >> 30} "
            "GiB are kept: in random order that is very slow. Tar files or a folder are read image by image."
        )
    every = np.arange(len(source), dtype=np.int64)
    return PackedImages(
        images=OnDemand(source, layout, max_unreadable),
        rows=every,
        geometry=np.broadcast_to(np.zeros(2, dtype=np.int32), (len(source), 2)),
        readable=np.ones(len(source), dtype=np.bool_),
        labels=source.labels,
        class_names=source.class_names,
        unreadable=[],
        fingerprint=layout.fingerprint,
        source=source,
        origin=every,
        note=note.strip(),
    )


def _packed(source: Source, fingerprint: str, contents: Contents, max_unreadable: float, note: str) -> PackedImages:
    count = len(source)
    readable = np.ones(count, dtype=np.bool_)
    readable[[index for index, _ in contents.unreadable]] = False
    named = [(source.describe(index), reason) for index, reason in contents.unreadable]
    if len(named) > max_unreadable * count or not readable.any():
        raise too_many_unreadable(source, contents.unreadable, max_unreadable)
    origin = np.arange(count, dtype=np.int64)
    rows = _replacement(readable, source.name) if named else origin
    return PackedImages(
        images=contents.images,
        rows=rows,
        geometry=contents.geometry[rows] if named else contents.geometry,
        readable=readable,
        labels=source.labels[rows] if source.labels is not None and named else source.labels,
        class_names=source.class_names,
        unreadable=named,
        fingerprint=fingerprint,
        source=source,
        origin=origin,
        note=note,
    )


def _replacement(readable: NDArray[np.bool_], name: str) -> NDArray[np.int64]:
    """For each entry itself if it is readable, else the next one that is, wrapping around; int64 [N].

    >>> _replacement(np.array([True, False, False, True, False]), "toy").tolist()
    [0, 3, 3, 3, 0]
    """
    good = np.flatnonzero(readable)
    if len(good) == 0:
        raise DataError(f"None of these {len(readable)} images of {name} is readable.", "Mend them or choose others.")
    return good[np.searchsorted(good, np.arange(len(readable))) % len(good)].astype(np.int64)

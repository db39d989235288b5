"""Decoding a whole source, block after block, in threads (Pillow lets go of the interpreter while it works)."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from compressl.data.decode import Pixels, UnreadableImage, decode, decode_squashed, probe, squash
from compressl.data.source import Source
from compressl.errors import DataError

KEPT_SIDE = 64  # images of one size up to here are kept as they are
BLOCK = 32  # images that a thread decodes at a time
_SHOWN = 5  # unreadable images that a message lists
MAX_WORKERS = 16  # with a block each: neighbouring row groups of a Parquet file are open at once, not all of them

T = TypeVar("T")


@dataclass(frozen=True)
class Contents:
    """A packed source: images uint8 [N, H, W, 3], geometry int32 [N, 2], and (index, reason) of the unreadable."""

    images: Pixels
    geometry: NDArray[np.int32]
    unreadable: list[tuple[int, str]]


@dataclass(frozen=True)
class Block:
    """Entries start..stop-1 of a source, packed; unreadable ones are black."""

    start: int
    stop: int
    images: Pixels
    geometry: NDArray[np.int32]
    unreadable: list[tuple[int, str]]
    digest: bytes  # of images and geometry, by :func:`digest_of`


def plan(source: Source, side: int) -> tuple[tuple[int, int], bool]:
    """The (height, width) of packed images, and whether it is the images' own (else each is squashed to it).

    Reads headers alone, and stops at the first image that is larger than both limits: then they are squashed whatever
    the others are. A source of large images is thus not read twice.
    """
    keep = max(KEPT_SIDE, side)
    sizes: set[tuple[int, int]] = set()
    for found in in_order(lambda start, stop: _sizes(source, start, stop), blocks(0, len(source))):
        sizes |= found
        if any(max(size) > keep for size in sizes):
            return (side, side), False
    if len(sizes) == 1:
        return sizes.pop(), True
    largest = max((max(size) for size in sizes), default=side)
    return (min(side, largest), min(side, largest)), False


def suggest_view_size(source: Source) -> int:
    """A side for views of these images, in pixels: that of images of one size up to 64 px, else 32, 64, 96 or 224.

    Judged by the median of the shorter sides of up to 64 images spread over the source; unreadable ones do not count.
    """
    sides: list[int] = []
    for index in np.linspace(0, len(source) - 1, min(64, len(source))).astype(int) if len(source) else []:
        sides += [min(size) for size in _sizes(source, int(index), int(index) + 1)]
    side = int(np.median(sides)) if sides else 224
    if side <= KEPT_SIDE:
        return max(16, side) if len(set(sides)) == 1 else 32 if side < 48 else 64
    return 96 if side < 192 else 224


def unpack(
    source: Source, shape: tuple[int, int], exact: bool, ranges: Iterable[tuple[int, int]] | None = None
) -> Generator[Block]:
    """The source, or some ranges of it, in blocks, in order; few of them are in memory at a time."""
    wanted = [(0, len(source))] if ranges is None else ranges
    each = (block for start, stop in wanted for block in blocks(start, stop))
    return in_order(lambda start, stop: _block(source, start, stop, shape, exact), each)


def blocks(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """A range of entries in parts of :data:`BLOCK`.

    >>> list(blocks(32, 100))
    [(32, 64), (64, 96), (96, 100)]
    """
    return ((first, min(first + BLOCK, stop)) for first in range(start, stop, BLOCK))


def digest_of(images: Pixels, geometry: NDArray[np.int32]) -> bytes:
    """SHA-256 of packed pixels, followed by their geometry."""
    total = hashlib.sha256(images.data)
    total.update(geometry.data)
    return total.digest()


def _sizes(source: Source, start: int, stop: int) -> set[tuple[int, int]]:
    sizes = set()
    for index in range(start, stop):
        try:
            data = source.read(index)
            sizes.add(probe(data) if isinstance(data, bytes) else (data.shape[0], data.shape[1]))
        except (OSError, UnreadableImage):
            continue  # it is named when it is decoded
    return sizes


def _block(source: Source, start: int, stop: int, shape: tuple[int, int], exact: bool) -> Block:
    images = np.zeros((stop - start, *shape, 3), dtype=np.uint8)
    geometry = np.zeros((stop - start, 2), dtype=np.int32)
    unreadable = []
    for index in range(start, stop):
        try:
            images[index - start], geometry[index - start] = read(source, index, shape, exact)
        except UnreadableImage as error:
            unreadable.append((index, str(error)))
    return Block(start, stop, images, geometry, unreadable, digest_of(images, geometry))


def read(source: Source, index: int, shape: tuple[int, int], exact: bool) -> tuple[Pixels, tuple[int, int]]:
    """One image as it is packed, uint8 [H, W, 3], and its true (height, width).

    Raises:
        UnreadableImage: with the reason.
    """
    try:
        data = source.read(index)
    except OSError as error:
        raise UnreadableImage(error.strerror or str(error)) from error
    if isinstance(data, bytes) and not exact:
        return decode_squashed(data, shape[0])
    pixels = decode(data) if isinstance(data, bytes) else data
    size = (pixels.shape[0], pixels.shape[1])
    if not exact:
        return squash(pixels, shape[0]), size
    if size != shape:  # the file was exchanged after its header was read
        raise UnreadableImage(f"it is {size[1]} x {size[0]} pixels, unlike its header's {shape[1]} x {shape[0]}")
    return pixels, size


def too_many_unreadable(source: Source, found: list[tuple[int, str]], tolerated: float) -> DataError:
    """The sentence for a source of which more than a share is unreadable; ``found`` is (index, reason) of each."""
    listed = "; ".join(f"{source.describe(index)}: {reason}" for index, reason in found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return DataError(
        f"{len(found)} of the {len(source)} images of {source.name} are unreadable, more than the "
        f"{tolerated:.0%} tolerated: {listed}{more}.",
        "Mend or remove them; `compressl pretrain` takes --data.max-unreadable to tolerate more.",
    )


def workers() -> int:
    """Threads that decode at the same time."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_WORKERS, allowed)


def in_order(work: Callable[[int, int], T], ranges: Iterable[tuple[int, int]]) -> Generator[T]:
    """``work(start, stop)`` of each range in threads; the results in order, with a bounded number of them waiting."""
    count = workers()
    pool = ThreadPoolExecutor(count, thread_name_prefix="compressl-decode")
    waiting: deque[Future[T]] = deque()
    try:
        for start, stop in ranges:
            waiting.append(pool.submit(work, start, stop))
            if len(waiting) > 2 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)

"""What of a store is written, with a hash of each stretch: a packing that ended early goes on, and every byte of a
finished store can be checked.

``journal.jsonl`` has a line about the whole, then one for each stretch of about 16 MB, written once its images and
geometry are. The hash of a stretch is the SHA-256 over those of its blocks (:func:`compressl.data.packing.digest_of`)
and over what was unreadable.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressl.data.packing import BLOCK, blocks, digest_of, in_order

VERSION = 2  # raise it when the layout or the way images are packed changes
STRETCH_BYTES = 16 * 2**20
JOURNAL, IMAGES, GEOMETRY = "journal.jsonl", "images.npy", "geometry.npy"

Unreadable = list[tuple[int, str]]


@dataclass(frozen=True)
class Layout:
    """What a store holds.

    >>> layout = Layout("0123", images=100, height=512, width=512, exact=False)
    >>> layout.stretch, [layout.range(k) for k in range(layout.stretches)]
    (32, [(0, 32), (32, 64), (64, 96), (96, 100)])
    """

    fingerprint: str  # of the source
    images: int
    height: int
    width: int
    exact: bool  # the images' own size, rather than one that they are squashed to
    version: int = VERSION

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def stretch(self) -> int:
        """Images of a stretch: whole blocks of together 16 MB or less, at least one."""
        return max(1, STRETCH_BYTES // (self.height * self.width * 3) // BLOCK) * BLOCK

    @property
    def stretches(self) -> int:
        return -(-self.images // self.stretch)

    @property
    def nbytes(self) -> int:
        return self.images * self.image_bytes

    @property
    def image_bytes(self) -> int:
        """Of one image: its pixels, and its height and width as int32."""
        return self.height * self.width * 3 + 8

    def range(self, number: int) -> tuple[int, int]:
        """First image of a stretch, and the one after its last."""
        return number * self.stretch, min((number + 1) * self.stretch, self.images)

    def line(self) -> str:
        return json.dumps(asdict(self) | {"sha256": self._hash()}) + "\n"

    @staticmethod
    def of_line(line: bytes) -> Layout | None:
        """None for a line that is torn or foreign."""
        try:
            about = json.loads(line)
            expected = about.pop("sha256")
            layout = Layout(**about)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        return layout if layout._hash() == expected else None

    def _hash(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()


@dataclass(frozen=True)
class Stretch:
    """A stretch that was written."""

    number: int
    sha256: str
    unreadable: Unreadable

    @staticmethod
    def of(number: int, digests: Iterable[bytes], unreadable: Unreadable) -> Stretch:
        """From the hashes of its blocks, in order."""
        total = hashlib.sha256(b"".join(digests))
        total.update(json.dumps(unreadable).encode())
        return Stretch(number, total.hexdigest(), unreadable)

    def line(self) -> str:
        return json.dumps({"stretch": self.number, "sha256": self.sha256, "unreadable": self.unreadable}) + "\n"


def read_layout(folder: Path) -> Layout | None:
    """The first line of a folder's journal; None if there is none that can be read."""
    try:
        with (folder / JOURNAL).open("rb") as stream:
            return Layout.of_line(stream.readline())
    except OSError:
        return None


def read_stretches(folder: Path) -> dict[int, Stretch]:
    """The other lines, by number; what is torn or foreign is left out."""
    found = {}
    for line in (folder / JOURNAL).read_bytes().splitlines()[1:]:
        try:
            about: dict[str, Any] = json.loads(line)
            unreadable = [(int(index), str(reason)) for index, reason in about["unreadable"]]
            found[int(about["stretch"])] = Stretch(int(about["stretch"]), str(about["sha256"]), unreadable)
        except (ValueError, TypeError, KeyError):
            continue
    return found


def written(folder: Path) -> tuple[int, int] | None:
    """How many images of how many a packing has written, by the length of its journal; None where nothing is begun."""
    layout = read_layout(folder)
    if layout is None:
        return None
    try:
        lines = (folder / JOURNAL).read_bytes().count(b"\n")
    except OSError:  # it is finished, and its folder has another name
        return None
    return min((lines - 1) * layout.stretch, layout.images), layout.images


def intact(
    folder: Path, layout: Layout, written: dict[int, Stretch], progress: Callable[[int, int], None] | None = None
) -> dict[int, Stretch]:
    """Those of the written stretches whose bytes are what was written; ``progress(images, of all)`` counts them."""
    offsets = {name: offset(folder / name) for name in (IMAGES, GEOMETRY)}

    def again(start: int, stop: int) -> Stretch:
        return _on_disk(folder, layout, offsets, start, stop, written[start // layout.stretch].unreadable)

    good, done = {}, 0
    for found in in_order(again, (layout.range(k) for k in sorted(written) if 0 <= k < layout.stretches)):
        if found == written[found.number]:
            good[found.number] = found
            start, stop = layout.range(found.number)
            done += stop - start
            if progress:
                progress(done, layout.images)
    return good


def offset(file: Path) -> int:
    """Where the values of a .npy file begin."""
    return int(np.load(file, mmap_mode="r", allow_pickle=False).offset)


def _on_disk(
    folder: Path, layout: Layout, offsets: dict[str, int], start: int, stop: int, unreadable: Unreadable
) -> Stretch:
    """What a stretch would be recorded as now. Read, not mapped: a broken disk is then an error, and no signal."""
    digests = []
    pixels = layout.image_bytes - 8
    for first, last in blocks(start, stop):
        count = last - first
        images = np.fromfile(folder / IMAGES, np.uint8, count * pixels, offset=offsets[IMAGES] + first * pixels)
        geometry = np.fromfile(folder / GEOMETRY, np.int32, 2 * count, offset=offsets[GEOMETRY] + first * 8)
        digests.append(digest_of(images, geometry))
    return Stretch.of(start // layout.stretch, digests, unreadable)

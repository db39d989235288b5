"""Images that are already decoded: an array in memory, or a .npy file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressl.data.decode import Pixels, to_rgb
from compressl.data.source import Family, LabelError, Labels, checked_labels, digest, if_usable
from compressl.errors import DataError

_SAMPLES, _SAMPLE_BYTES = 64, 16384  # what of an array's content goes into its fingerprint: 1 MB, evenly spread


class ArraySource:
    """Images of one size, uint8 [N, H, W], or [N, H, W, C] with C of 1 (grey), 3 (RGB) or 4 (RGBA).

    Raises:
        DataError: for another type or shape, or labels that do not fit.

    >>> source = ArraySource(np.zeros((2, 4, 5), np.uint8), name="toy")
    >>> len(source), source.read(0).shape
    (2, (4, 5, 3))
    """

    def __init__(
        self,
        images: Pixels,
        labels: NDArray[Any] | None = None,
        class_names: list[str] | None = None,
        name: str = "array",
    ) -> None:
        _check_images(images, name)
        self.images = images
        self.name = name
        self.note = ""
        self.class_names = class_names
        self.labels: Labels | None = None
        if labels is not None:
            self.labels = if_usable(lambda: self._checked(labels), None)

    def _checked(self, labels: NDArray[Any]) -> Labels | None:
        if labels.ndim != 1 or len(labels) != len(self.images) or not np.issubdtype(labels.dtype, np.integer):
            raise LabelError(
                f"The labels of {self.name} are {labels.dtype} {list(labels.shape)}, its images {len(self.images)}.",
                "Give one integer per image.",
            )
        return checked_labels(labels.astype(np.int64), self.class_names, self.name)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Pixels:
        return to_rgb(self.images[index])

    def describe(self, index: int) -> str:
        return f"{self.name} entry {index}"

    def fingerprint(self) -> str:
        # An array that is made again keeps its name and size, so unlike a file it is known by its content.
        flat = np.asarray(self.images).reshape(-1)
        starts = np.linspace(0, max(0, flat.size - _SAMPLE_BYTES), _SAMPLES).astype(np.int64)
        samples = [flat[start : start + _SAMPLE_BYTES].tobytes() for start in np.unique(starts)]
        return digest([(self.name, self.images.shape), *((sample,) for sample in samples)])


def npy_family(path: Path) -> Family:
    """A .npy file of images, with labels in ``<name>.labels.npy`` beside it if that is there."""

    def opened() -> ArraySource:
        beside = path.with_suffix(".labels.npy")
        labels = load(beside) if beside.exists() else None
        return ArraySource(load(path), labels, name=path.name)

    return Family({"all": opened})


def load(path: Path) -> NDArray[Any]:
    """The array of a .npy file, mapped rather than read.

    Raises:
        DataError: if it is damaged or would need pickle, which could run code.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except (OSError, ValueError, EOFError) as error:
        pickled = "pickle" in str(error).lower() or "object" in str(error).lower()
        reason = "it holds Python objects (pickle), which could run code" if pickled else str(error)
        raise DataError(
            f"{path} cannot be read as an array: {reason}.",
            "Save plain numbers with numpy.save(..., allow_pickle=False).",
        ) from error


def _check_images(images: NDArray[Any], name: str) -> None:
    found = f"{name} is {images.dtype} {list(images.shape)}"
    wanted = "Images are uint8 [N, H, W] (grey) or [N, H, W, C] with C of 1, 3 or 4."
    if images.dtype != np.uint8:
        raise DataError(f"{found}.", f"{wanted} Scale the values to 0..255 and convert them.")
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3, 4):
        raise DataError(f"{found}: the channels come first.", f"{wanted} Use images.transpose(0, 2, 3, 1).")
    if images.ndim == 3 and images.shape[2] in (1, 3, 4):
        raise DataError(f"{found}: that looks like a single image.", wanted)
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3, 4)) or 0 in images.shape[1:3]:
        raise DataError(f"{found}.", wanted)
    if len(images) == 0:
        raise DataError(f"{name} holds no images.", wanted)

"""Images with classes, as an evaluation uses them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from compressl.data import PackedImages
from compressl.errors import DataError
from compressl.randomness import generator

MOST_CLASSES = 100_000


@dataclass(frozen=True)
class Labelled:
    """Images with classes: a packed set, the images used of it, their labels."""

    packed: PackedImages
    indices: NDArray[np.int64]
    labels: NDArray[np.int64]

    @staticmethod
    def of(packed: PackedImages, role: str, limit: int | None = None, seed: int = 0) -> Labelled:
        """The readable labelled images of a set, ``limit`` of them drawn per class if given.

        Raises:
            DataError: the set has no labels or fewer than two classes.
        """
        if packed.labels is None:
            raise DataError(
                f"The {role} images have no labels, which an evaluation needs.",
                "Give a folder with one sub-folder per class, or Parquet with a `label` column.",
            )
        indices = np.flatnonzero(packed.readable)
        if limit is not None and limit < len(indices):
            indices = indices[per_class(packed.labels[indices], limit, seed)]
        labels = packed.labels[indices]
        if labels.max() > MOST_CLASSES:
            raise DataError(
                f"The {role} images have a label {labels.max()}; labels number the classes from 0.",
                "Number them so, or use class folders.",
            )
        if len(np.unique(labels)) < 2:
            raise DataError(f"The {role} images show one class only.", "An evaluation needs at least two.")
        return Labelled(packed, indices, labels)


def per_class(labels: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """``limit`` positions with all classes in turn, so that small draws stay balanced; in rising order.

    >>> labels = np.array([0, 0, 0, 0, 1, 1])
    >>> labels[per_class(labels, 4, seed=0)].tolist()
    [0, 0, 1, 1]
    """
    order = torch.randperm(len(labels), generator=generator("training images", seed)).numpy()
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    place = np.empty(len(labels), dtype=np.int64)
    place[order] = np.arange(len(labels))
    return np.sort(np.lexsort((place, rank))[:limit]).astype(np.int64)

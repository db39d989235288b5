"""People's votes on what the test images show, from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressl.errors import DataError
from compressl.evaluation.ground import Ground
from compressl.measures.calibration import vote_shares

NAMES = ("counts", "votes", "probabilities")  # looked for in an .npz of several arrays


def soft_labels(ground: Ground, path: Path | None) -> Tensor | None:
    """People's votes for the test images as distributions, float64 [N, C] on the CPU; None if no file is given.

    Raises:
        DataError: a file that is not [images, classes], in the order of all test images or of those that are readable,
            or votes that agree with fewer than half of the labels.
    """
    if path is None:
        return None
    votes, test = _read(path.expanduser()), ground.test
    if votes.ndim != 2 or len(votes) not in (len(test.packed.readable), len(test.labels)):
        raise DataError(
            f"{path} holds an array {list(votes.shape)}; there are {len(test.packed.readable)} test images.",
            "Give [images, classes] in the order of the test images.",
        )
    if votes.shape[1] != ground.classes:
        raise DataError(
            f"{path} has votes for {votes.shape[1]} classes; there are {ground.classes}.", "Give one column per class."
        )
    if len(votes) == len(test.packed.readable):
        votes = votes[test.indices]
    shares = vote_shares(torch.from_numpy(votes.astype(np.float64)))
    agreed = float((shares.argmax(1).numpy() == test.labels).mean())
    if agreed < 0.5:
        raise DataError(
            f"The most votes in {path} are for the label of only {agreed:.0%} of the images.",
            "Give the rows in the order of the test images, the columns in that of the classes.",
        )
    return shares


def _read(path: Path) -> np.ndarray[Any, Any]:
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            names = [n for n in found.files if n in NAMES] or found.files
            return np.asarray(found[names[0]])
    except (OSError, ValueError, EOFError, IndexError) as error:
        raise DataError(
            f"{path} cannot be read: {error}.", "Give an .npy or .npz of votes, [images, classes]."
        ) from error

"""Accuracy on images of the same classes from elsewhere."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compressl.data import PackedImages, Source, open_source
from compressl.errors import DataError, UsageError
from compressl.evaluation.feature_cache import hash_of_rows
from compressl.evaluation.ground import ENCODER, RANDOM, Ground
from compressl.evaluation.labelled import Labelled
from compressl.measures.corruption_error import unpaired_difference
from compressl.measures.intervals import bootstrap_mean
from compressl.measures.packing import pack_bits

Record = dict[str, Any]


def measure_shifts(ground: Ground, skipped: dict[str, str]) -> dict[str, Record]:
    """By name of ``settings.shift``, ``name=path`` or ``name=path@classes.json``; why one cannot be had in skipped."""
    found: dict[str, Record] = {}
    for name, _, where in (pair.partition("=") for pair in ground.settings.shift):
        ground.count(f"shift: {name}", 0, 0)
        try:
            found[name] = _shift(ground, where)
        except (DataError, UsageError) as error:
            skipped[f"shift {name}"] = str(error)
    return found


def _shift(ground: Ground, where: str) -> Record:
    path, at, file = where.rpartition("@")
    path, classes = (path, _read(Path(file))) if at and file.endswith(".json") else (where, {})
    source = _open(path)
    if source.labels is None:
        raise DataError(f"{source.name} has no labels.", "Give a folder with one sub-folder per class, or Parquet.")
    packed = ground.pack(source, source.name)
    theirs = source.class_names or [str(c) for c in range(int(source.labels.max()) + 1)]
    number = match_classes(theirs, ground.class_names, classes)
    elsewhere, unmapped = _mapped(packed, theirs, number)
    shared = np.unique(elsewhere.labels)
    here = np.isin(ground.test.labels, shared)
    if not here.any():
        raise DataError(f"The test images show none of the classes that {source.name} shares with the training images.")
    there = replace(ground, test=elsewhere)
    return {
        "images": len(elsewhere.labels),
        "data": packed.fingerprint,
        "rows": hash_of_rows(np.stack([elsewhere.indices, elsewhere.labels])),  # a mapping says which, and as what
        "classes": [ground.class_names[c] for c in shared],
        "clean_images": int(here.sum()),
        "left_out": f"No training class has these names: {', '.join(unmapped)}." if unmapped else None,
        "results": {name: _compare(ground, there, name, here) for name in (ENCODER, RANDOM)},
    }


@torch.no_grad()
def _compare(ground: Ground, there: Ground, name: str, here: NDArray[np.bool_]) -> Record:
    """Accuracy there, accuracy here on the same classes, and the difference; of the probe of all classes."""
    probe, settings = ground.probe(name), ground.settings
    right, clean = ((probe.predict(g.features(name, "test")).cpu().numpy() == g.test.labels) for g in (there, ground))
    clean = clean[here]
    draws = {"resamples": settings.resamples, "seed": settings.seed}
    return {
        "accuracy": asdict(bootstrap_mean(right, **draws)) | {"correct": pack_bits(right)},
        "clean": asdict(bootstrap_mean(clean, **draws)),
        "gap": asdict(unpaired_difference(clean, right, **draws)),
    }


def match_classes(theirs: list[str], ours: list[str], given: dict[str, str]) -> list[int | None]:
    """The number of our class for each of theirs, None where there is none. Case, "_" and "-" do not matter.

    Args:
        given: their names and ours, where they differ; before all else.

    Raises:
        DataError: ``given`` names a class that is not ours.

    >>> match_classes(["Motor_Car", "cat", "yak"], ["cat", "automobile"], {"motor car": "automobile"})
    [1, 0, None]
    """
    number = {_plain(name): c for c, name in enumerate(ours)}
    stray = [name for name in given.values() if _plain(name) not in number]
    if stray:
        raise DataError(f"The mapping names classes that the training images have not: {', '.join(stray)}.")
    words = {_plain(name): _plain(ours_name) for name, ours_name in given.items()}
    return [number.get(words.get(_plain(name), _plain(name))) for name in theirs]


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _mapped(packed: PackedImages, theirs: list[str], number: list[int | None]) -> tuple[Labelled, list[str]]:
    """The readable images of classes that we have, numbered as ours; the names of those that we have not."""
    assert packed.labels is not None
    present = np.unique(packed.labels)
    lookup = np.array([-1 if c is None else c for c in number], dtype=np.int64)
    labels = lookup[packed.labels]
    unmapped = [theirs[c] for c in present if lookup[c] < 0]
    indices = np.flatnonzero(packed.readable & (labels >= 0))
    if len(indices) == 0:
        raise DataError(
            f"None of its classes is one of the training images': {', '.join(unmapped[:10])}.",
            "Give a mapping: name=path@classes.json, {their class: training class}.",
        )
    return Labelled(packed, indices, labels[indices]), unmapped


def _open(path: str) -> Source:
    """Its own test part if it sets one aside, else all of it: nothing of it was trained on."""
    whole = open_source(path)
    has_no_split = len(open_source(path, "train")) < len(whole)
    return whole if has_no_split else open_source(path, "test")


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}.", "Give {their class: training class}.") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise DataError(f"{path} is no mapping of names.", "Give {their class: training class}.")
    return found

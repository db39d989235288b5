"""Accuracy on other labelled images than those of the evaluation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from compressl.data import open_splits
from compressl.errors import DataError, UsageError
from compressl.evaluation import accuracy
from compressl.evaluation.ground import ENCODER, Ground
from compressl.evaluation.labelled import Labelled


def measure(ground: Ground) -> dict[str, Any]:
    """The figures of :func:`compressl.evaluation.accuracy.measure` on each data set of ``--transfer name=path``.

    Each has its own training and test images, its own probes and few labels; the encoders and the settings are those of
    this evaluation. A data set that cannot be used is a sentence under ``skipped``.

    Raises:
        DataError: none can be used.
    """
    record: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for name, _, path in (pair.partition("=") for pair in ground.settings.transfer):
        try:
            other = elsewhere(ground, name, path)
            results = accuracy.measure(other)
        except (DataError, UsageError) as error:
            skipped[name] = str(error)
            continue
        skipped |= {f"{name}: {part}": sentence for part, sentence in results.pop("skipped", {}).items()}
        record[name] = {"data": _data(other, path), "results": results}
    if not record:
        raise DataError(" ".join(skipped.values()) or "There are no other images.", "Give --transfer name=path.")
    return record | ({"skipped": skipped} if skipped else {})


def elsewhere(ground: Ground, name: str, path: str) -> Ground:
    """The same encoders on other images, seen by the same view.

    Raises:
        DataError, UsageError: they cannot be opened, have no labels, or no training image shows some test class.
    """
    settings, encoder = ground.settings, ground.modules[ENCODER]
    assert encoder is not None
    sources = open_splits(path, seed=settings.seed)
    train = ground.pack(sources.train, f"{name}, training images")
    test = ground.pack(sources.test, f"{name}, test images")
    return Ground.of(
        encoder,
        ground.card,
        Labelled.of(train, "training", settings.limit, settings.seed),
        Labelled.of(test, "test"),
        replace(settings, data=path, test=None),
        ground.device,
        class_names=train.class_names,
        split=sources.split_description,
        views=ground.views,
        advance=lambda what, done, total: ground.count(f"{name}, {what}", done, total),
    )


def _data(ground: Ground, path: str) -> dict[str, Any]:
    train, test = ground.train, ground.test
    return {
        "name": path,
        "train_images": len(train.labels),
        "test_images": len(test.labels),
        "train_fingerprint": train.packed.fingerprint,
        "test_fingerprint": test.packed.fingerprint,
        "classes": ground.class_names,
        "split": ground.split,
        "chance": float(np.bincount(test.labels).max() / len(test.labels)),
    }

"""The evaluation: features once, then every measure that was asked for, beside a random encoder and raw pixels.

What is chosen (weight decays, learning rates, temperatures) is chosen on training images. The test images are touched
by the final classifiers alone, and every figure has an interval. A measure that cannot be had says why under
``skipped``; the others are taken all the same.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compressl.devices import environment
from compressl.errors import DataError
from compressl.evaluation import features
from compressl.evaluation.ground import ENCODER, Ground
from compressl.evaluation.labelled import per_class
from compressl.measures import knn
from compressl.measures.packing import unpack_bits
from compressl.models import EncoderCard
from compressl.settings.evaluate import EvaluateSettings

SCHEMA = 2
QUERIES, NEIGHBORS = 8, 8  # the picture of nearest neighbours


@dataclass(frozen=True)
class Evaluation:
    """The record that becomes ``evaluation.json``, and what the picture of neighbours needs."""

    record: dict[str, Any]
    queries: NDArray[np.int64]
    """Some test images, one of each class in turn."""
    neighbors: NDArray[np.int64]
    """Their nearest training images, nearest first, [len(queries), NEIGHBORS]."""

    def correct(self, representation: str, classifier: str) -> NDArray[np.bool_]:
        """Whether each test image was classified rightly."""
        packed: str = self.record["results"][representation][classifier]["correct"]
        return unpack_bits(packed, self.record["data"]["test_images"])


def measure_of(name: str) -> Callable[[Ground], dict[str, Any]]:
    """The function that takes a measure: ``measure`` of the file of that name in this room."""
    found: Callable[[Ground], dict[str, Any]] = import_module(f"compressl.evaluation.{name.replace('-', '_')}").measure
    return found


def evaluate(ground: Ground) -> Evaluation:
    """Take every measure that the settings ask for.

    Raises:
        DataError: the features of the encoder are not finite, so that there is nothing to measure.
    """
    settings, test = ground.settings, ground.test
    bank, queries = ground.features(ENCODER, "train"), ground.features(ENCODER, "test")
    chosen = per_class(test.labels, min(QUERIES, len(test.labels)), seed=0)
    neighbors = knn.nearest(bank, queries[torch.from_numpy(chosen)], NEIGHBORS)[1].cpu().numpy()
    measures: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for name in settings.selected():
        ground.count(name, 0, 0)
        began = time.perf_counter()
        try:
            measures[name] = measure_of(name)(ground)
        except DataError as error:
            skipped[name] = str(error)
        seconds[name] = round(time.perf_counter() - began, 2)
    results = measures.pop("accuracy", {})
    skipped |= {f"accuracy of {part}": sentence for part, sentence in results.pop("skipped", {}).items()}
    record = {
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "encoder": asdict(ground.card),
        "data": _data(ground),
        "protocol": protocol(ground.card, settings),
        "environment": environment(ground.device, settings.precision),
        "results": results,
        "measures": measures,
        "skipped": skipped,
        "seconds": seconds,
    }
    return Evaluation(record, chosen, neighbors)


def _data(ground: Ground) -> dict[str, Any]:
    train, test, card = ground.train, ground.test, ground.card
    seen = card.data_fingerprint in test.packed.fingerprints if card.data_fingerprint else None
    return {
        "name": ground.settings.data,
        "train_images": len(train.labels),
        "test_images": len(test.labels),
        "test_fingerprint": test.packed.fingerprint,
        "classes": ground.class_names,
        "split": ground.split + ("; these test images were also pretrained on, without their labels" if seen else ""),
        "train_fingerprint": train.packed.fingerprint,
        "seen_in_pretraining": seen,
        "chance": float(np.bincount(test.labels).max() / len(test.labels)),
    }


def protocol(card: EncoderCard, settings: EvaluateSettings) -> dict[str, Any]:
    """What the figures mean, in words and numbers."""
    whole = "whole image" if card.size <= features.SMALL else f"central {features.PROPORTION} of the shorter side"
    decays = ", ".join(f"{w:g}" for w in sorted(settings.weight_decays))
    return {
        "view": f"{whole}, {card.size} px, antialiased bilinear",
        "knn": f"k = {settings.k}, votes exp(cosine / {settings.temperature:g}) (Wu et al. 2018)",
        "linear": "multinomial logistic regression on standardised features, L-BFGS; weight decay of "
        f"{{{decays}}} chosen on a held-out fifth of each class of the training images, then fitted on all of them",
        "ridge": "least squares on standardised features with one-hot targets; ridge by leave-one-out on those images",
        "few labels": f"ridge on {settings.draws} draws of labels, the same for every representation; interval over "
        "draws and test images",
        "interval": f"95 %, bootstrap over test images, {settings.resamples} resamples",
        "random encoder": "same architecture, random weights with every residual branch on, evaluation mode",
        "raw pixels": f"{min(card.size, features.PIXEL_SIDE)} px, less each image's mean",
        "seed": settings.seed,
    }

"""The evaluation: features once, then every measure, beside a random encoder and raw pixels.

What is chosen (the probe's weight decay) is chosen on training images. The test images are touched once, by the final
classifiers, and every figure has an interval.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressl.devices import environment
from compressl.errors import DataError
from compressl.evaluation import features, knn, linear
from compressl.evaluation.intervals import bootstrap_mean
from compressl.models import EncoderCard, create_encoder
from compressl.randomness import generator
from compressl.settings.evaluate import EvaluateSettings

if TYPE_CHECKING:
    from compressl.data.store import PackedImages

SCHEMA = 1
MOST_CLASSES = 100_000
QUERIES, NEIGHBORS = 8, 8  # the picture of nearest neighbours

Correct = NDArray[np.bool_]


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
            indices = indices[_per_class(packed.labels[indices], limit, seed)]
        labels = packed.labels[indices]
        if labels.max() > MOST_CLASSES:
            raise DataError(
                f"The {role} images have a label {labels.max()}; labels number the classes from 0.",
                "Number them so, or use class folders.",
            )
        if len(np.unique(labels)) < 2:
            raise DataError(f"The {role} images show one class only.", "An evaluation needs at least two.")
        return Labelled(packed, indices, labels)


def _per_class(labels: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """``limit`` positions with all classes in turn, so that small draws stay balanced."""
    order = torch.randperm(len(labels), generator=generator("training images", seed)).numpy()
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    place = np.empty(len(labels), dtype=np.int64)
    place[order] = np.arange(len(labels))
    return np.sort(np.lexsort((place, rank))[:limit]).astype(np.int64)


@dataclass(frozen=True)
class Evaluation:
    """The record that becomes ``evaluation.json``, and what the pictures need."""

    record: dict[str, Any]
    correct: dict[str, dict[str, Correct]]
    """representation -> measure -> whether each test image was classified rightly."""
    queries: NDArray[np.int64]
    """Some test images, one of each class in turn, for the picture of neighbours."""
    neighbors: NDArray[np.int64]
    """Their nearest training images, nearest first, [len(queries), NEIGHBORS]."""


def evaluate(
    encoder: nn.Module,
    card: EncoderCard,
    train: Labelled,
    test: Labelled,
    settings: EvaluateSettings,
    device: torch.device,
    *,
    class_names: list[str] | None = None,
    split: str = "",
    advance: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Evaluation:
    """Measure an encoder, a random encoder of the same architecture, and raw pixels.

    Args:
        split: how training and test images were told apart, in words, for the record.
        advance: told what is being done, how many images of how many are done.

    Raises:
        DataError: a test class is absent from the training images.
    """
    classes = int(max(train.labels.max(), test.labels.max())) + 1
    _check_classes(train, test, class_names)
    labels = torch.from_numpy(train.labels).to(device)
    # with residual branches that start at zero, most of an untrained ResNet would be switched off: no fair opponent
    untrained = create_encoder(replace(card.settings(), zero_init=False), card.size, seed=settings.seed)
    results: dict[str, dict[str, Any]] = {}
    correct: dict[str, dict[str, Correct]] = {}
    chosen, neighbors = _queries(test.labels), np.zeros((0, NEIGHBORS), dtype=np.int64)
    for name, module in (("encoder", encoder), ("random encoder", untrained), ("raw pixels", None)):
        bank, queries = (_features(module, images, card, settings, device, name, advance) for images in (train, test))
        _check_features(bank, name)
        advance(f"{name}: classifiers", 0, 0)
        probe = linear.fit_best(bank, labels, classes, settings.weight_decays, settings.seed)
        predictions = {
            "knn": knn.knn_predict(bank, labels, queries, classes, k=settings.k, temperature=settings.temperature),
            "linear": probe.predict(queries),
        }
        correct[name] = {measure: (p.cpu().numpy() == test.labels) for measure, p in predictions.items()}
        results[name] = {
            measure: {**asdict(bootstrap_mean(right, settings.resamples, settings.seed)), "correct": pack_bits(right)}
            for measure, right in correct[name].items()
        }
        results[name]["dimension"] = bank.shape[1]
        results[name]["linear"]["weight_decay"] = probe.weight_decay
        if name == "encoder":
            neighbors = knn.nearest(bank, queries[torch.from_numpy(chosen)], NEIGHBORS)[1].cpu().numpy()
    seen = card.data_fingerprint in test.packed.fingerprints if card.data_fingerprint else None
    record = {
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "encoder": asdict(card),
        "data": {
            "name": settings.data,
            "train_images": len(train.labels),
            "test_images": len(test.labels),
            "test_fingerprint": test.packed.fingerprint,
            "classes": class_names or [str(c) for c in range(classes)],
            "split": split + ("; these test images were also pretrained on, without their labels" if seen else ""),
            "train_fingerprint": train.packed.fingerprint,
            "seen_in_pretraining": seen,
            "chance": float(np.bincount(test.labels).max() / len(test.labels)),
        },
        "protocol": protocol(card, settings),
        "environment": environment(device, settings.precision),
        "results": results,
    }
    return Evaluation(record, correct, chosen, neighbors)


def protocol(card: EncoderCard, settings: EvaluateSettings) -> dict[str, Any]:
    """What the figures mean, in words and numbers."""
    whole = "whole image" if card.size <= features.SMALL else f"central {features.PROPORTION} of the shorter side"
    decays = ", ".join(f"{w:g}" for w in sorted(settings.weight_decays))
    return {
        "view": f"{whole}, {card.size} px, antialiased bilinear",
        "knn": f"k = {settings.k}, votes exp(cosine / {settings.temperature:g}) (Wu et al. 2018)",
        "linear": "multinomial logistic regression on standardised features, L-BFGS; weight decay of "
        f"{{{decays}}} chosen on a held-out fifth of the training images, then fitted on all of them",
        "interval": f"95 %, bootstrap over test images, {settings.resamples} resamples",
        "random encoder": "same architecture, random weights with every residual branch on, evaluation mode",
        "raw pixels": f"{min(card.size, features.PIXEL_SIDE)} px, less each image's mean",
        "seed": settings.seed,
    }


def _features(
    module: nn.Module | None,
    images: Labelled,
    card: EncoderCard,
    settings: EvaluateSettings,
    device: torch.device,
    name: str,
    advance: Callable[[str, int, int], None],
) -> Tensor:
    if module is None:
        return features.raw_pixels(images.packed, images.indices, card.size, device, settings.batch_size)
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        advance(f"{name}: features", done, len(images.indices))

    return features.extract(
        module.to(device),
        images.packed,
        images.indices,
        size=card.size,
        mean=card.mean,
        std=card.std,
        device=device,
        precision=settings.precision,
        batch_size=settings.batch_size,
        advance=count,
    )


def _check_classes(train: Labelled, test: Labelled, class_names: list[str] | None) -> None:
    absent = sorted(set(test.labels.tolist()) - set(train.labels.tolist()))
    if absent:
        names = ", ".join(class_names[c] if class_names and c < len(class_names) else str(c) for c in absent)
        raise DataError(
            f"Some test images belong to classes that no training image shows: {names}.",
            "Raise --limit, or give training images of these classes.",
        )


def _check_features(bank: Tensor, name: str) -> None:
    if not bool(torch.isfinite(bank).all()):
        raise DataError(f"The {name} gives features that are not finite.", "The training diverged; pretrain again.")


def _queries(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Test images for the picture: one of each class in turn."""
    return _per_class(labels, min(QUERIES, len(labels)), seed=0)


def pack_bits(correct: Correct) -> str:
    """Whether each test image was right, one bit each, for paired comparisons between runs.

    >>> unpack_bits(pack_bits(np.array([True, False, True])), 3).tolist()
    [True, False, True]
    """
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


def unpack_bits(text: str, count: int) -> Correct:
    """The reverse of :func:`pack_bits`."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=count).astype(bool)

"""How well classes can be read from a representation: by neighbours, by a linear probe, and from few labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compressl.errors import DataError
from compressl.evaluation.ground import Ground
from compressl.measures import few_labels
from compressl.measures.intervals import bootstrap_mean
from compressl.measures.knn import knn_predict
from compressl.measures.packing import pack_bits
from compressl.measures.ridge import fit_ridge


def measure(ground: Ground) -> dict[str, Any]:
    """Accuracy on the test images of classifiers fitted on the training images, for each representation.

    All representations see the same draws of few labels. What is chosen (weight decay, ridge) is chosen on training
    images; the intervals of ``few_labels`` are those of :func:`compressl.measures.few_labels.over_draws`, the others
    bootstraps over test images.

    Raises:
        DataError: features are not finite, or no class has enough images for a choice.
    """
    draws, skipped = _draws(ground)
    record: dict[str, Any] = {name: _representation(ground, name, draws) for name in ground.modules}
    return record | ({"skipped": skipped} if skipped else {})


def _representation(ground: Ground, name: str, draws: dict[str, list[Tensor]]) -> dict[str, Any]:
    bank, queries = ground.features(name, "train"), ground.features(name, "test")
    labels, expected, classes = ground.labels("train"), ground.labels("test"), ground.classes
    settings = ground.settings
    ground.count(f"{name}: classifiers", 0, 0)
    probe, ridge = ground.probe(name), fit_ridge(bank, labels, classes)
    neighbors = knn_predict(bank, labels, queries, classes, k=settings.k, temperature=settings.temperature)
    curve = {}
    for done, (amount, rows) in enumerate(draws.items(), 1):
        fitted = [fit_ridge(bank[chosen], labels[chosen], classes) for chosen in rows]
        correct = torch.stack([each.predict(queries) == expected for each in fitted])  # [D, N]
        curve[amount] = asdict(few_labels.over_draws(correct)) | {"draws": correct.double().mean(1).tolist()}
        ground.count(f"{name}: few labels", done, len(draws))
    return {
        "dimension": bank.shape[1],
        "knn": _figure(ground, neighbors == expected),
        "linear": _figure(ground, probe.predict(queries) == expected) | {"weight_decay": probe.weight_decay},
        "ridge": _figure(ground, ridge.predict(queries) == expected) | {"ridge": ridge.weight_decay},
        "few_labels": curve,
    }


def _figure(ground: Ground, correct: Tensor) -> dict[str, Any]:
    right = correct.cpu().numpy()
    estimate = bootstrap_mean(right, ground.settings.resamples, ground.settings.seed)
    return asdict(estimate) | {"correct": pack_bits(right)}


def _draws(ground: Ground) -> tuple[dict[str, list[Tensor]], dict[str, str]]:
    """Rows of each draw by the amount of labels ("5", "1 %"), and why an amount cannot be had."""
    settings, labels = ground.settings, ground.labels("train")
    amounts: dict[str, Callable[[int], Tensor]] = {}
    for shots in settings.shots:
        amounts[str(shots)] = partial(few_labels.draw_shots, labels, shots, settings.seed)
    for fraction in settings.fractions:
        amounts[f"{100 * fraction:g} %"] = partial(few_labels.draw_fraction, labels, fraction, settings.seed)
    found: dict[str, list[Tensor]] = {}
    skipped: dict[str, str] = {}
    for amount, rows in amounts.items():
        try:
            found[amount] = [rows(draw) for draw in range(settings.draws)]
        except DataError as error:
            what = amount if amount.endswith("%") else f"{amount} per class"
            skipped[f"few labels, {what}"] = str(error)
    return found, skipped

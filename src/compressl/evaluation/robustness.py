"""What is left of the accuracy where images are corrupted, attacked or from elsewhere.

Linear probe and kNN are fitted on clean training images; the corrupted images are of the test set, the same ones for
every encoder with the same settings, so that two records can be compared image by image.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressl.corruptions import CATEGORIES, EXTRA, KINDS, SEVERITIES, SMALL, corrupt
from compressl.errors import DataError
from compressl.evaluation.attacks import measure_attacks
from compressl.evaluation.feature_cache import hash_of_rows
from compressl.evaluation.ground import ENCODER, RANDOM, Ground
from compressl.evaluation.shift import measure_shifts
from compressl.measures.corruption_error import CorruptionErrors, corruption_errors
from compressl.measures.intervals import Estimate, bootstrap_mean
from compressl.measures.knn import knn_predict
from compressl.measures.packing import pack_bits, pack_floats, unpack_bits

BANK = 10_000  # training images that the kNN classifier of corrupted images uses, at most
ALL = (*KINDS, *EXTRA)
ALEXNET = {  # errors in percent, mean over severities, by which Hendrycks and Dietterich (2019) divide
    "gaussian_noise": 88.6, "shot_noise": 89.4, "impulse_noise": 92.3, "defocus_blur": 82.0, "glass_blur": 82.6,
    "motion_blur": 78.6, "zoom_blur": 79.8, "snow": 86.7, "frost": 82.7, "fog": 81.9, "brightness": 56.5,
    "contrast": 85.3, "elastic_transform": 64.6, "pixelate": 71.8, "jpeg_compression": 60.7,
}  # fmt: skip
ALEXNET_CLEAN = 43.5

Record = dict[str, Any]
Reals = NDArray[np.float64]


def measure(ground: Ground) -> Record:
    """Robustness of the encoder and of a random encoder. What cannot be had stands under ``skipped``, in sentences.

    Raises:
        DataError: features that are not finite.
    """
    skipped: dict[str, str] = {}
    rows = ground.rows("test", ground.settings.images)
    outcomes = _outcomes(ground, rows)
    conditions = _conditions(ground, rows)
    results = {name: _summary(ground, outcome) for name, outcome in outcomes.items()}
    results[ENCODER] |= _per_image(outcomes[ENCODER])
    if ground.settings.baseline is not None:
        try:
            base = _baseline(ground.settings.baseline, conditions)
            for name, outcome in outcomes.items():
                results[name]["baseline"] = _against(ground, outcome, base, skipped)
        except DataError as error:
            skipped["baseline"] = str(error)
    if ground.card.size > SMALL:
        for name, outcome in outcomes.items():
            results[name]["alexnet"] = _against(ground, outcome, _alexnet(), skipped)
    return {
        "protocol": _protocol(ground),
        "conditions": conditions,
        "kinds": {"benchmark": list(KINDS), "extra": list(EXTRA)},
        "results": results,
        "attacks": measure_attacks(ground),
        "shift": measure_shifts(ground, skipped),
        "skipped": skipped,
    }


@dataclass(frozen=True)
class Outcome:
    """Which of N images a linear probe got right."""

    clean: NDArray[np.bool_]
    """[N]."""
    corrupted: dict[str, NDArray[np.bool_]]
    """By kind, [severities, N]."""
    knn_clean: NDArray[np.bool_] | None = None
    knn_corrupted: Reals | None = None
    """Share of the corrupted versions of each image that kNN got right, [N]."""

    def mean(self, kinds: tuple[str, ...] = KINDS) -> Reals:
        """Share of the corrupted versions of each image that are right, [N]."""
        return np.asarray(np.mean([self.corrupted[kind].mean(0) for kind in kinds], axis=0), dtype=np.float64)

    def errors(self) -> Reals:
        """Of each kind of the benchmark and each image, mean over severities, [K, N]."""
        return 1.0 - np.stack([self.corrupted[kind].mean(0) for kind in KINDS])

    def clean_errors(self) -> Reals:
        """[N]."""
        return np.asarray(1 - self.clean.astype(np.int64), dtype=np.float64)


@torch.no_grad()
def _outcomes(ground: Ground, rows: Tensor) -> dict[str, Outcome]:
    """Every corruption of every image, once, through both encoders."""
    names, settings = (ENCODER, RANDOM), ground.settings
    labels = ground.labels("test")[rows.to(ground.device)]
    n, total, done = len(rows), len(rows) * len(ALL) * len(SEVERITIES), 0
    clean = {name: (torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)) for name in names}
    right = {name: {kind: torch.zeros(len(SEVERITIES), n, dtype=torch.bool) for kind in ALL} for name in names}
    knn = dict.fromkeys(names, torch.zeros(n, dtype=torch.float64))
    classifiers = {name: _Classifiers(ground, name) for name in names}
    for part, batch in zip(torch.split(torch.arange(n), settings.batch_size), ground.images("test", rows), strict=True):
        keys, true = rows[part].to(batch.device), labels[part.to(labels.device)]
        for name in names:
            for found, predicted in zip(clean[name], classifiers[name](batch, both=True), strict=True):
                found[part] = (predicted == true).cpu()
        for kind in ALL:
            counts = kind in KINDS
            for level, severity in enumerate(SEVERITIES):
                images = corrupt(batch, kind, severity, keys, settings.seed)
                for name in names:
                    predictions = [(p == true).cpu() for p in classifiers[name](images, both=counts)]
                    right[name][kind][level, part] = predictions[0]
                    if counts:
                        knn[name] = knn[name].index_add(0, part, predictions[1].double())
                done += len(part)
                ground.count("corrupted images", done, total)
    return {
        name: Outcome(
            clean[name][0].numpy(),
            {kind: found.numpy() for kind, found in right[name].items()},
            clean[name][1].numpy(),
            knn[name].numpy() / (len(KINDS) * len(SEVERITIES)),
        )
        for name in names
    }


class _Classifiers:
    """Linear probe and kNN of clean training images."""

    def __init__(self, ground: Ground, name: str) -> None:
        rows = ground.rows("train", BANK).to(ground.device)
        self.ground, self.name, self.probe = ground, name, ground.probe(name)
        self.bank, self.labels = ground.features(name, "train")[rows], ground.labels("train")[rows]

    def __call__(self, images: Tensor, both: bool) -> list[Tensor]:
        """Classes int64 [B] by the probe, and by kNN if ``both``."""
        ground, features = self.ground, self.ground.encode(self.name, images)
        found = [self.probe.predict(features)]
        if both:
            k, temperature = ground.settings.k, ground.settings.temperature
            found.append(knn_predict(self.bank, self.labels, features, ground.classes, k=k, temperature=temperature))
        return found


def _summary(ground: Ground, outcome: Outcome) -> Record:
    def mean(values: NDArray[Any]) -> Record:
        return asdict(bootstrap_mean(values, ground.settings.resamples, ground.settings.seed))

    assert outcome.knn_clean is not None
    assert outcome.knn_corrupted is not None
    corrupted = outcome.mean()
    return {
        "clean": mean(outcome.clean),
        "corrupted": mean(corrupted),
        "gap": mean(outcome.clean - corrupted),
        "mean_corruption_error": mean(1 - corrupted),
        "categories": {category: mean(outcome.mean(kinds)) for category, kinds in CATEGORIES.items()},
        "extra": mean(outcome.mean(EXTRA)),
        "accuracy": {kind: found.mean(1).tolist() for kind, found in outcome.corrupted.items()},
        "knn": {
            "clean": mean(outcome.knn_clean),
            "corrupted": mean(outcome.knn_corrupted),
            "gap": mean(outcome.knn_clean - outcome.knn_corrupted),
        },
    }


def _per_image(outcome: Outcome) -> Record:
    """What two records need to be compared image by image; severity 1 of all images comes first."""
    return {
        "correct": {
            "clean": pack_bits(outcome.clean),
            "corrupted": {kind: pack_bits(found.ravel()) for kind, found in outcome.corrupted.items()},
            "mean_corrupted": pack_floats(outcome.mean()),
        }
    }


@dataclass(frozen=True)
class _Baseline:
    name: str
    errors: Reals  # [K, N], or [K, 1] of published figures
    clean: Reals  # [N] or [1]
    note: str = ""


def _baseline(path: Path, conditions: Record) -> _Baseline:
    """The encoder of another record, if it saw the same corrupted images.

    Raises:
        DataError: it did not, or there is no such record.
    """
    try:
        record = json.loads(path.read_text())["measures"]["robustness"]
        theirs, correct, n = record["conditions"], record["results"][ENCODER]["correct"], conditions["images"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} holds no measured robustness ({type(error).__name__}).",
            "Give the evaluation.json of another run, evaluated with --measures robustness.",
        ) from error
    different = [what for what in conditions if conditions[what] != theirs.get(what)]
    if different:
        raise DataError(
            f"{path} was measured under other conditions: {', '.join(different)} differ.",
            "Evaluate it again with the same data, --images, --seed and size of view.",
        )
    corrupted = {k: unpack_bits(correct["corrupted"][k], n * len(SEVERITIES)).reshape(-1, n) for k in KINDS}
    outcome = Outcome(unpack_bits(correct["clean"], n), corrupted)
    return _Baseline(str(path), outcome.errors(), outcome.clean_errors())


def _alexnet() -> _Baseline:
    errors = np.array([[ALEXNET[kind] / 100] for kind in KINDS])
    note = "published errors on ImageNet-C: comparable only for the 1000 classes of ImageNet, and not for frost"
    return _Baseline("AlexNet", errors, np.array([ALEXNET_CLEAN / 100]), note)


def _against(ground: Ground, outcome: Outcome, base: _Baseline, skipped: dict[str, str]) -> Record:
    """Corruption errors relative to a baseline; how much better the mean accuracy is, paired, where images allow it."""
    settings, clean = ground.settings, outcome.clean_errors()
    found: Record = {"name": base.name, **({"note": base.note} if base.note else {})}
    pairs: dict[str, tuple[Reals | None, Reals | None]] = {"": (None, None), "relative_": (clean, base.clean)}
    for key, (own, other) in pairs.items():
        try:
            errors = corruption_errors(outcome.errors(), base.errors, own, other, settings.resamples, settings.seed)
        except DataError as error:
            skipped[f"{key.replace('_', ' ')}corruption errors against {base.name}"] = str(error)
        else:
            found |= _named(key, errors)
    if base.errors.shape[1] == len(clean):
        better: Estimate = bootstrap_mean((base.errors - outcome.errors()).mean(0), settings.resamples, settings.seed)
        found["accuracy_difference"] = asdict(better)
    return found


def _named(key: str, errors: CorruptionErrors) -> Record:
    return {
        f"{key}corruption_error": dict(zip(KINDS, errors.by_kind, strict=True)),
        f"{key}mean_corruption_error": asdict(errors.mean),
    }


def _conditions(ground: Ground, rows: Tensor) -> Record:
    """What two records must have in common to be compared image by image."""
    return {
        "images": len(rows),
        "rows": hash_of_rows(ground.test.indices[rows.numpy()]),
        "data": ground.test.packed.fingerprint,
        "size": ground.card.size,
        "seed": ground.settings.seed,
    }


def _protocol(ground: Ground) -> Record:
    published = "CIFAR-10-C" if ground.card.size <= SMALL else "ImageNet-C"
    return {
        "corruptions": f"15 kinds x 5 severities and 4 extra kinds (Hendrycks and Dietterich 2019), numbers of "
        f"{published}, on {ground.card.size} px views; means are over the 15",
        "frost": "drawn, not photographed: not comparable with published figures",
        "classifier": "linear probe of clean training images",
        "knn": f"k = {ground.settings.k}, of {len(ground.rows('train', BANK))} clean training images",
    }

"""Two evaluations against each other, image by image and draw by draw, so that "better" means something.

A difference is taken only of figures over the same test images in the same order under the same protocol; its interval
is a bootstrap over images of the paired differences, or of Student's t over the draws of few labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressl.measures.intervals import Estimate, bootstrap_mean, mean_over_draws
from compressl.measures.packing import unpack_bits, unpack_floats

Record = Mapping[str, Any]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """One figure of the first record less that of the second."""

    name: str
    unit: str
    """points (of a hundred), bits, or nothing."""
    better: int
    """1 where more is better, -1 where less is, 0 where neither."""
    first: float
    second: float
    difference: Estimate
    images: int

    @property
    def verdict(self) -> str:
        """better, worse, more, less, or no difference that these images could show."""
        d = self.difference
        if d.low <= 0 <= d.high:
            return "no difference"
        if self.better == 0:
            return "more" if d.value > 0 else "less"
        return "better" if (d.value > 0) == (self.better > 0) else "worse"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}


@dataclass(frozen=True)
class _Figure:
    name: str
    unit: str
    better: int
    values: Callable[[Record], Values]
    """Of each image; raises KeyError or TypeError where the record lacks it."""
    terms: Callable[[Record], object]
    """What must be equal in both records for the figures to be comparable."""
    draws: bool = False


def _at(record: Record, *path: str) -> Any:
    found: Any = record
    for name in path:
        found = found[name]
    return found


def _correct(*path: str) -> Callable[[Record], Values]:
    def read(record: Record) -> Values:
        return 100 * unpack_bits(_at(record, *path), int(record["data"]["test_images"])).astype(np.float64)

    return read


def _reals(*path: str, scale: float = 1.0) -> Callable[[Record], Values]:
    return lambda record: scale * unpack_floats(_at(record, *path)).astype(np.float64)


def _few(amount: str) -> Callable[[Record], Values]:
    return lambda record: 100 * np.asarray(_at(record, "results", "encoder", "few_labels", amount, "draws"), np.float64)


def _terms(*paths: tuple[str, ...]) -> Callable[[Record], object]:
    def read(record: Record) -> object:
        return [_at(record, *path) for path in paths]

    return read


_ACCURACY = _terms(("protocol", "linear"), ("protocol", "knn"), ("data", "train_images"))
_INFORMATION = ("measures", "information")
_LIPSCHITZ = ("measures", "lipschitz", "results", "encoder")
_SEED = ("protocol", "seed")


def _figures(record: Record) -> list[_Figure]:
    info = (*_INFORMATION, "representations", "encoder")
    stated = _terms((*_INFORMATION, "channel"), (*_INFORMATION, "kappa"), (*_INFORMATION, "views"), _SEED)
    uncertainty = ("measures", "uncertainty", "results", "encoder", "per_image")
    robust = ("measures", "robustness", "results", "encoder")
    found = [
        _Figure(label, "points", 1, _correct("results", "encoder", key, "correct"), _ACCURACY)
        for key, label in (("knn", "kNN accuracy"), ("linear", "linear probe"), ("ridge", "ridge classifier"))
    ]
    amounts = record.get("results", {}).get("encoder", {}).get("few_labels", {})
    for amount in amounts:
        label = f"accuracy from {amount}" + (" of the labels" if amount.endswith("%") else " labels per class")
        found.append(_Figure(label, "points", 1, _few(amount), _terms(_SEED, ("data", "train_images")), draws=True))
    found += [
        _Figure(
            "accuracy under corruption", "points", 1, _reals(*robust, "per_image", "corrupted", scale=100.0),
            _terms(("measures", "robustness", "protocol"), _SEED),
        ),
        _Figure(
            "accuracy lost to corruption", "points", -1, _reals(*robust, "per_image", "gap", scale=100.0),
            _terms(("measures", "robustness", "protocol"), _SEED),
        ),
        _Figure("kept information, lower bound", "bits", 0, _reals(*info, "per_image", "kept_lower"), stated),
        _Figure(
            "superfluous information, upper bound", "bits", -1, _reals(*info, "per_image", "superfluous_upper"), stated
        ),
        _Figure(
            "cosine of two views", "", 0,
            _reals("measures", "geometry", "results", "encoder", "invariance", "per_image", "cosine"),
            _terms(("measures", "geometry", "protocol"), _SEED),
        ),
        _Figure(
            "local slope of the encoder", "", -1, _reals(*_LIPSCHITZ, "local", "per_image"),
            _terms(("measures", "lipschitz", "protocol"), _SEED),
        ),
        _Figure(
            "slope between two views", "", -1, _reals(*_LIPSCHITZ, "pairs", "views", "per_image"),
            _terms(("measures", "lipschitz", "protocol"), _SEED),
        ),
        _Figure("log loss of the linear probe", "bits", -1, _reals(*uncertainty, "nll_bits"), _ACCURACY),
        _Figure("Brier score of the linear probe", "", -1, _reals(*uncertainty, "brier"), _ACCURACY),
    ]  # fmt: skip
    return found


def differences(first: Record, second: Record, *, resamples: int = 1000) -> list[Difference]:
    """What two ``evaluation.json`` records have in common, first less second.

    Figures that either lacks, or that were taken under another protocol, are left out; records of other test images
    have nothing in common.
    """
    one, other = (record.get("data", {}).get("test_fingerprint") for record in (first, second))
    if one is None or one != other:
        return []
    found = []
    for figure in _figures(first):
        try:
            if figure.terms(first) != figure.terms(second):
                continue
            a, b = figure.values(first), figure.values(second)
        except (KeyError, TypeError, ValueError):
            continue
        if len(a) != len(b) or not len(a):
            continue
        estimate = mean_over_draws(a - b) if figure.draws else bootstrap_mean(a - b, resamples)
        numbers = float(a.mean()), float(b.mean())
        found.append(Difference(figure.name, figure.unit, figure.better, *numbers, estimate, len(a)))
    return found

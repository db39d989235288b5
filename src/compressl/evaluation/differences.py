"""Two evaluations against each other, image by image and draw by draw, so that "better" means something.

A difference is taken only of figures over the same test images in the same order under the same protocol; its interval
is a bootstrap over images of the paired differences, or of Student's t over the draws of few labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressl.measures.channels import orthogonal_bits
from compressl.measures.intervals import Estimate, bootstrap_mean, mean_over_draws
from compressl.measures.packing import unpack_bits, unpack_floats

Record = Mapping[str, Any]
Values = NDArray[np.float64]
Path = tuple[str | int, ...]
Reader = Callable[[Record], Values]
Term = Path | Callable[[Record], Any]

DAMAGE = (LookupError, TypeError, ValueError, AttributeError)  # what a record without the figure raises
NORMS = {"linf": "L∞", "l2": "L2"}
MORE, LESS, NEITHER = 1, -1, 0  # which is better


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
    """Or draws of labelled images."""

    @property
    def verdict(self) -> str:
        """better, worse, more, less, or no difference that these images could show."""
        d = self.difference
        if d.low <= 0 <= d.high:
            return "no difference"
        if self.better == NEITHER:
            return "more" if d.value > 0 else "less"
        return "better" if (d.value > 0) == (self.better > 0) else "worse"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}


@dataclass(frozen=True)
class _Figure:
    name: str
    unit: str
    better: int
    values: Reader
    """Of each image; raises one of DAMAGE where the record lacks it."""
    terms: tuple[Term, ...]
    """What must be on record and equal in both for the figures to be comparable."""
    draws: bool = False
    views: bool = False
    """Taken on random views as in the training."""


def differences(first: Record, second: Record, *, same_views: bool = True, resamples: int = 1000) -> list[Difference]:
    """What two ``evaluation.json`` records have in common, first less second.

    Figures that either lacks, or that were taken under another protocol, are left out; records of other test images
    have nothing in common.

    Args:
        same_views: the encoders were trained with the same views, so that figures taken on views are of the same ones.
    """
    one, other = (_find(record, ("data", "test_fingerprint")) for record in (first, second))
    if not one or one != other:
        return []
    figures = (figure for figure in _figures(first) if same_views or not figure.views)
    return [found for figure in figures if (found := _compare(figure, first, second, resamples))]


def attack_name(norm: str, epsilon: float) -> str:
    """
    >>> attack_name("linf", 2 / 255), attack_name("l2", 0.5), attack_name("linf", 0.0)
    ('L∞ 2/255', 'L2 0.5', 'no attack')
    """
    if not epsilon:
        return "no attack"
    levels = 255 * epsilon
    size = f"{levels:.0f}/255" if norm == "linf" and abs(levels - round(levels)) < 1e-6 else f"{epsilon:.3g}"
    return f"{NORMS.get(norm, norm)} {size}"


def _compare(figure: _Figure, first: Record, second: Record, resamples: int) -> Difference | None:
    try:
        if any(_term(first, term) != _term(second, term) for term in figure.terms):
            return None
        a, b = figure.values(first), figure.values(second)
        if len(a) != len(b) or not len(a) or not np.isfinite(a - b).all():
            return None
        estimate = mean_over_draws(a - b) if figure.draws else bootstrap_mean(a - b, resamples)
    except DAMAGE:
        return None
    return Difference(figure.name, figure.unit, figure.better, float(a.mean()), float(b.mean()), estimate, len(a))


_SEED: Path = ("protocol", "seed")
_TRAIN: Path = ("data", "train_images")
_PROBE: tuple[Path, ...] = (("protocol", "linear"), _TRAIN)


def _figures(record: Record) -> Iterator[_Figure]:
    """All that a record may have, in the order of the page."""
    yield from _accuracy(record)
    yield from _information()
    yield from _robustness(record)
    yield from _others(record)
    yield from _geometry()
    uncertainty: Path = ("measures", "uncertainty", "results", "encoder", "per_image")
    yield _Figure("log loss of the linear probe", "bits", LESS, _reals(*uncertainty, "nll_bits"), _PROBE)
    yield _Figure("Brier score of the linear probe", "", LESS, _reals(*uncertainty, "brier"), _PROBE)


def _accuracy(record: Record) -> Iterator[_Figure]:
    encoder: Path = ("results", "encoder")
    right = _correct(*encoder, "linear", "correct")
    yield _Figure("linear probe", "points", MORE, right, _PROBE)
    right = _correct(*encoder, "knn", "correct")
    yield _Figure("nearest neighbours", "points", MORE, right, (("protocol", "knn"), _TRAIN))
    yield _Figure("ridge classifier", "points", MORE, _correct(*encoder, "ridge", "correct"), (_TRAIN,))
    same: tuple[Path, ...] = (_SEED, _TRAIN, ("data", "train_fingerprint"))  # so are the draws
    for amount in _names(record, *encoder, "few_labels"):
        draws = _draws(*encoder, "few_labels", amount, "draws")
        yield _Figure(f"ridge classifier, {_labels(amount)}", "points", MORE, draws, same, draws=True)
    tuned: Path = ("measures", "fine-tuning")
    for amount in _names(record, *tuned, "encoder"):
        terms = ((*tuned, "protocol"), (*tuned, "encoder", amount, "images"), _SEED, _TRAIN)
        right = _correct(*tuned, "encoder", amount, "correct")
        yield _Figure(f"fine-tuned, {_labels(amount)}", "points", MORE, right, terms)


def _information() -> Iterator[_Figure]:
    measure: Path = ("measures", "information")
    encoder: Path = (*measure, "representations", "encoder")
    terms: tuple[Term, ...] = (*((*measure, name) for name in ("channel", "views", "images")), _sharpness, _SEED)
    for part, key, better, name in (
        ("kept", "kept_lower", NEITHER, "kept information, lower bound"),
        ("superfluous", "superfluous_upper", LESS, "superfluous information, upper bound"),
    ):
        values = _resolved((*encoder, part, "saturated"), _reals(*encoder, "per_image", key))
        yield _Figure(name, "bits", better, values, terms, views=True)


def _sharpness(record: Record) -> float:
    """The sharpness of the stated channel in bits, which one kappa gives in one dimension and another in another."""
    measure = _at(record, "measures", "information")
    bits = measure.get("orthogonal_bits")
    if bits is None:  # a record of before it was written down
        bits = orthogonal_bits(int(measure["representations"]["encoder"]["dimension"]), float(measure["kappa"]))
    return round(float(bits), 6)


def _robustness(record: Record) -> Iterator[_Figure]:
    measure: Path = ("measures", "robustness")
    count, attacks = (*measure, "conditions", "images"), (*measure, "attacks")
    correct: Path = (*measure, "results", "encoder", "correct")
    terms: tuple[Path, ...] = ((*measure, "conditions"), (*measure, "protocol"), *_PROBE)
    corrupted = _reals(*correct, "mean_corrupted", scale=100.0)
    clean = _correct(*correct, "clean", count=count)
    yield _Figure("accuracy under corruption", "points", MORE, corrupted, terms)
    yield _Figure("lost to corruption", "points", LESS, lambda r: clean(r) - corrupted(r), terms)
    for norm in NORMS:
        entries = _find(record, (*attacks, norm))
        for i, entry in enumerate(entries if isinstance(entries, list) else ()):
            epsilon = _find(entry, ("epsilon",))
            if not isinstance(epsilon, int | float) or not epsilon:
                continue
            place: Path = (*attacks, norm, i)
            same = (*terms, (*attacks, "images"), (*attacks, "steps"), (*place, "epsilon"))
            right = _correct(*place, "correct", count=(*attacks, "images"))
            yield _Figure(f"under attack, {attack_name(norm, float(epsilon))}", "points", MORE, right, same)


def _others(record: Record) -> Iterator[_Figure]:
    """Images from elsewhere, and other data."""
    for name in _names(record, "measures", "robustness", "shift"):
        place: Path = ("measures", "robustness", "shift", name)
        same: tuple[Path, ...] = (*((*place, key) for key in ("data", "rows", "classes", "clean_images")), *_PROBE)
        right = _correct(*place, "results", "encoder", "accuracy", "correct", count=(*place, "images"))
        yield _Figure(f"elsewhere, {name}", "points", MORE, right, same)
    for name in _names(record, "measures", "transfer"):
        place = ("measures", "transfer", name)
        data = ("test_fingerprint", "train_fingerprint", "train_images")
        same = (*((*place, "data", key) for key in data), ("protocol", "linear"))
        right = _correct(*place, "results", "encoder", "linear", "correct", count=(*place, "data", "test_images"))
        yield _Figure(f"other data, {name}", "points", MORE, right, same)


def _geometry() -> Iterator[_Figure]:
    measure: Path = ("measures", "geometry")
    views: Path = (*measure, "results", "encoder", "invariance")
    terms: tuple[Path, ...] = ((*measure, "protocol"), (*views, "images"), (*views, "views"), _SEED)
    cosine = _reals(*views, "per_image", "cosine")
    yield _Figure("cosine of two views", "", NEITHER, cosine, terms, views=True)
    slopes: Path = ("measures", "lipschitz", "results", "encoder")
    terms = (("measures", "lipschitz", "protocol"), ("encoder", "size"), _SEED)  # pixels are counted in every slope
    between = _reals(*slopes, "pairs", "views", "per_image")
    yield _Figure("slope between two views", "", NEITHER, between, terms, views=True)
    yield _Figure("largest local slope", "", NEITHER, _reals(*slopes, "local", "per_image"), terms)


def _labels(amount: str) -> str:
    return f"{amount} of the labels" if amount.endswith("%") else f"{amount} per class"


def _at(record: Any, *path: str | int) -> Any:
    for name in path:
        record = record[name]
    return record


def _term(record: Record, term: Term) -> Any:
    return term(record) if callable(term) else _at(record, *term)


def _find(record: Any, path: Path) -> Any:
    """What stands there, or None."""
    try:
        return _at(record, *path)
    except DAMAGE:
        return None


def _names(record: Record, *path: str | int) -> list[str]:
    found = _find(record, path)
    return [name for name, part in found.items() if isinstance(part, dict)] if isinstance(found, dict) else []


def _correct(*path: str | int, count: Path = ("data", "test_images")) -> Reader:
    """Right answers, in points."""
    return lambda record: 100 * unpack_bits(_at(record, *path), int(_at(record, *count))).astype(np.float64)


def _reals(*path: str | int, scale: float = 1.0) -> Reader:
    return lambda record: scale * unpack_floats(_at(record, *path)).astype(np.float64)


def _draws(*path: str | int) -> Reader:
    return lambda record: 100 * np.asarray(_at(record, *path), np.float64)


def _resolved(saturated: Path, values: Reader) -> Reader:
    """Values of a bound, unless it is at its ceiling, where it says nothing of the figure."""

    def read(record: Record) -> Values:
        if _at(record, *saturated):
            raise ValueError("at the ceiling")
        return values(record)

    return read

"""How much more a classifier errs on corrupted images than another one (Hendrycks and Dietterich 2019, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressl.errors import DataError
from compressl.measures.intervals import Estimate

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class CorruptionErrors:
    """Errors of each kind relative to those of a baseline, and their mean."""

    by_kind: list[float]
    mean: Estimate


def corruption_errors(
    errors: Reals,
    baseline: Reals,
    clean: Reals | None = None,
    clean_baseline: Reals | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> CorruptionErrors:
    """CE_k = E_k / B_k and mCE = mean_k CE_k, or relative to the clean errors (E_k - E_0) / (B_k - B_0).

    E_k is the error on images of kind k, mean over severities; B_k the baseline's. 1 is as robust as the baseline, 0
    unharmed. The interval is the percentile bootstrap over images, the same ones for both classifiers.

    Args:
        errors: of each image, mean over severities, [K, N].
        baseline: of the other classifier on the same images, [K, N]; or [K, 1], published figures.
        clean, clean_baseline: errors on the clean images, [N] (or [1]); both or none.

    Raises:
        DataError: the baseline does not err, or no more than on clean images, for some kind.

    >>> errors, baseline = np.array([[0.0, 1, 1, 0]]), np.array([[1.0, 1, 1, 1]])
    >>> corruption_errors(errors, baseline, resamples=100).by_kind
    [0.5]
    """
    more = np.asarray(errors, np.float64) - (0 if clean is None else clean)  # [K, N]
    base = np.asarray(baseline, np.float64) - (0 if clean_baseline is None else clean_baseline)
    base = np.broadcast_to(base, more.shape)
    if bool((base.mean(1) <= 0).any()):
        than = "" if clean is None else " more than on clean images"
        raise DataError(f"The baseline does not err{than} for some kind of corruption, so that no ratio can be had.")
    n = more.shape[1]
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples) / n  # [R, N]
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.mean((weights @ more.T) / (weights @ base.T), axis=1)  # [R]
    low, high = np.percentile(means[np.isfinite(means)], [2.5, 97.5])
    ratios = more.mean(1) / base.mean(1)
    return CorruptionErrors([float(r) for r in ratios], Estimate(float(ratios.mean()), float(low), float(high)))


def unpaired_difference(first: NDArray[np.generic], second: NDArray[np.generic], resamples: int, seed: int) -> Estimate:
    """Mean of one set of images [N] less that of another [M], each resampled on its own (percentile bootstrap).

    >>> unpaired_difference(np.ones(4), np.array([True, False]), resamples=100, seed=0).value
    0.5
    """
    random = np.random.default_rng(seed)
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    means = [[x[random.integers(0, len(x), len(x))].mean() for x in (a, b)] for _ in range(resamples)]
    low, high = np.percentile(np.subtract(*np.transpose(means)), [2.5, 97.5])
    return Estimate(float(a.mean() - b.mean()), float(low), float(high))

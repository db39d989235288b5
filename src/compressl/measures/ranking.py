"""Whether a score orders images as it should: detection, rank correlation, and what is left when the worst are refused.

Ties count as what they are: every figure here is its mean over all orders of tied images, so the order in which images
come has no say. Scores are higher where an image is *less* certain. All is computed in float64 on the CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compressl.errors import DataError
from compressl.measures.intervals import Estimate

Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


def midranks(values: Tensor) -> Tensor:
    """Ranks from 1, tied values sharing the mean of theirs, [N] -> float64 [N].

    >>> midranks(torch.tensor([5.0, 1.0, 5.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, inverse, count = torch.unique(_scores(values), return_inverse=True, return_counts=True)
    count = count.double()
    ranks: Tensor = count.cumsum(0) - (count - 1) / 2
    return ranks[inverse]


def auroc(scores: Tensor, positive: Tensor) -> Estimate:
    """The chance that a positive image scores higher than a negative one, ties counting half, with a 95 % interval.

    AUROC = (R_+ - n_+ (n_+ + 1) / 2) / (n_+ n_-), R_+ the sum of the positives' midranks (Mann and Whitney 1947). Its
    standard error is that of DeLong et al. 1988 by midranks (Sun and Xu 2014); the interval is cut off at 0 and 1, and
    of no width where the two do not overlap at all.

    Args:
        scores: [N].
        positive: bool [N].

    Raises:
        DataError: there are no positives or no negatives, or scores that are not finite.

    >>> auroc(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([False, False, True, True])).value
    0.75
    """
    s, p = _two_kinds(scores, positive)
    ranks, kinds = midranks(s), (s[p], s[~p])
    n, m = map(len, kinds)
    # how many of the other kind lie below (above) each positive (negative), as a share     [n], [m]
    below = (ranks[p] - midranks(kinds[0])) / m
    above = 1 - (ranks[~p] - midranks(kinds[1])) / n
    value = float(below.mean())
    variance = sum(float(x.var()) / len(x) for x in (below, above) if len(x) > 1)
    spread = Z * math.sqrt(variance)
    return Estimate(value, max(0.0, value - spread), min(1.0, value + spread))


def false_positive_rate(scores: Tensor, positive: Tensor, kept: float = 0.95) -> float:
    """FPR at 95 % TPR as Liang et al. 2018 (arXiv:1706.02690) count it: the share of the *uncertain* kind that passes.

    The threshold is the lowest at which at least ``kept`` of the negatives (right answers, own images) pass, that is
    score at or below it; returned is the share of positives (errors, foreign images) that pass too. 0 is best.

    Raises:
        DataError: as :func:`auroc`.

    >>> false_positive_rate(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([False, False, True, True]))
    0.5
    """
    s, p = _two_kinds(scores, positive)
    negatives = s[~p].sort().values
    threshold = negatives[math.ceil(kept * len(negatives) - 1e-9) - 1]
    return float((s[p] <= threshold).double().mean())


def spearman(x: Tensor, y: Tensor) -> Estimate:
    """Spearman's rank correlation of [N] and [N], the correlation of their midranks, with a 95 % interval.

    The interval is Fisher's, with the standard error sqrt((1 + r^2 / 2) / (N - 3)) of Bonett and Wright 2000.

    Raises:
        DataError: fewer than four images, a constant or values that are not finite.

    >>> spearman(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 4.0, 9.0, 16.0])).value
    1.0
    """
    ranks = [midranks(values) for values in (x, y)]
    n = len(ranks[0])
    if n < 4:
        raise DataError(f"A rank correlation needs four images; there are {n}.", "Give more.")
    a, b = (r - (n + 1) / 2 for r in ranks)
    if not bool(a.any()) or not bool(b.any()):
        raise DataError("A constant correlates with nothing.", "Give values that differ.")
    r = float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt())
    r = max(-1.0, min(1.0, r))
    if abs(r) == 1:
        return Estimate(r, r, r)
    spread = Z * math.sqrt((1 + r * r / 2) / (n - 3))
    return Estimate(r, math.tanh(math.atanh(r) - spread), math.tanh(math.atanh(r) + spread))


def trend(scores: Tensor) -> Tensor:
    """Spearman's correlation of each image's scores with the column's number, [N, S] -> float64 [N].

    An image whose scores are all equal has no trend: 0.

    >>> trend(torch.tensor([[1.0, 2.0, 9.0], [3.0, 3.0, 3.0], [2.0, 1.0, 0.0]])).tolist()
    [1.0, 0.0, -1.0]
    """
    s = _scores(scores)
    smaller = (s[:, None] < s[:, :, None]).sum(2)  # [N, S]
    tied = (s[:, None] == s[:, :, None]).sum(2)
    rank = smaller + (tied.double() - 1) / 2 - (s.shape[1] - 1) / 2
    column = torch.arange(s.shape[1], dtype=torch.float64) - (s.shape[1] - 1) / 2
    scale = (rank.square().sum(1) * column.square().sum()).sqrt()
    return (rank * column).sum(1) / scale.clamp_min(1e-12)


@dataclass(frozen=True)
class Selective:
    """What is wrong among the images that a score lets pass."""

    risk: Tensor  # share of errors among the k most certain images, float64 [N], k = 1 .. N
    aurc: float  # its mean over k
    oracle: float  # the same with every error last

    @property
    def excess(self) -> float:
        """E-AURC: what the order costs beyond the oracle's. 0 is best."""
        return self.aurc - self.oracle

    def at(self, coverages: Tensor) -> Tensor:
        """The risk when this share of the images is answered, [G] -> [G]; the number of images is rounded up."""
        return self.risk[((coverages * len(self.risk) - 1e-9).ceil().long() - 1).clamp_min(0)]


def selective(scores: Tensor, wrong: Tensor) -> Selective:
    """The risk-coverage curve and the area under it.

    risk(k) = errors among the k images of lowest score / k;  AURC = 1/N sum_k risk(k). A score that says nothing has
    the error rate as its expected AURC.

    Source: Geifman and El-Yaniv 2017, arXiv:1705.08500 (curve); Geifman, Uziel and El-Yaniv 2019, arXiv:1805.08206
    (areas; the oracle's is summed exactly here instead of r + (1 - r) log(1 - r)).

    Raises:
        DataError: no images, or scores that are not finite.

    >>> s = selective(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([False, False, True, False]))
    >>> s.risk.tolist()
    [0.0, 0.0, 0.3333333333333333, 0.25]
    """
    s, errors = _scores(scores), wrong.double().cpu()
    if len(s) == 0:
        raise DataError("A risk-coverage curve needs images.", "Give at least one.")
    _, group, size = torch.unique(s, return_inverse=True, return_counts=True)
    share = group.bincount(errors) / size  # of errors in each group of ties
    k = torch.arange(1, len(s) + 1, dtype=torch.float64)
    risk = share.repeat_interleave(size).cumsum(0) / k  # ties: the mean over their orders
    last = torch.zeros_like(k)
    last[len(k) - int(errors.sum()) :] = 1
    return Selective(risk, float(risk.mean()), float((last.cumsum(0) / k).mean()))


def area_interval(scores: Tensor, wrong: Tensor, resamples: int = 1000, seed: int = 0) -> Estimate:
    """AURC of :func:`selective` with its 95 % percentile bootstrap interval over images.

    Each resample is a weight for each image in the order of the scores: risk(k) is a ratio of sums of weights.

    >>> area_interval(torch.arange(4.0), torch.tensor([False, False, True, False]), resamples=100).value
    0.14583333333333331
    """
    s = _scores(scores)
    order, group = s.argsort(stable=True), torch.unique(s, return_inverse=True)[1]
    errors = (group.bincount(wrong.double().cpu()) / group.bincount())[group][order].numpy()  # ties share theirs
    n, random = len(errors), np.random.default_rng(seed)
    areas = np.empty(resamples)
    for draw in range(resamples):
        weight = np.bincount(random.integers(0, n, n), minlength=n)
        covered = np.maximum(weight.cumsum(), 1)  # before the first image drawn there are no errors either
        areas[draw] = (weight * (weight * errors).cumsum() / covered).sum() / n
    low, high = np.percentile(areas, [2.5, 97.5])
    return Estimate(selective(s, wrong).aurc, float(low), float(high))


def _two_kinds(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    s, p = _scores(scores), positive.cpu().bool()
    if not bool(p.any()) or bool(p.all()):
        which = "no positive" if not bool(p.any()) else "no negative"
        raise DataError(f"There is {which} image, so nothing to tell apart.", "Give both kinds.")
    return s, p


def _scores(scores: Tensor) -> Tensor:
    s = scores.detach().cpu().double()
    if not bool(torch.isfinite(s).all()):
        raise DataError("Some scores are not finite.", "The representation diverged, or has rows of zero length.")
    return s

"""Whether a classifier's probabilities can be believed: calibration errors, proper scores, people's votes.

Per-image quantities are returned per image, so that a caller can take their means, intervals and paired differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compressl.errors import DataError
from compressl.measures.intervals import Estimate

BINS = 15  # Guo et al. 2017
LOWEST, HIGHEST = 0.01, 100.0  # temperatures looked among


@dataclass(frozen=True)
class Reliability:
    """Bins of images by confidence, in rising order: all [B], float64, on the CPU. Empty bins hold zeros."""

    low: Tensor
    high: Tensor
    confidence: Tensor  # mean of the images in the bin
    accuracy: Tensor
    count: Tensor  # int64

    @property
    def error(self) -> float:
        """ECE = sum_b n_b / N |accuracy_b - confidence_b|."""
        return float((self.count * (self.accuracy - self.confidence).abs()).sum() / self.count.sum())


def confidence(logits: Tensor) -> Tensor:
    """max_c p(c), [N, C] -> float64 [N]."""
    return _double(logits).softmax(1).amax(1)


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """-log2 p(label) of each image in bits, [N, C] x int64 [N] -> float64 [N].

    >>> negative_log_likelihood(torch.zeros(1, 4), torch.tensor([2])).tolist()
    [2.0]
    """
    return F.cross_entropy(_double(logits), labels, reduction="none") / math.log(2)


def brier(logits: Tensor, labels: Tensor) -> Tensor:
    """sum_c (p(c) - [c = label])^2 of each image, between 0 and 2, [N, C] x int64 [N] -> float64 [N].

    Source: Brier 1950, "Verification of forecasts expressed in terms of probability" (the sum over all classes).

    >>> brier(torch.zeros(1, 4), torch.tensor([2])).tolist()
    [0.75]
    """
    p = _double(logits).softmax(1)
    return (p - F.one_hot(labels, p.shape[1])).square().sum(1)


def reliability(confidences: Tensor, correct: Tensor, bins: int = BINS, equal_mass: bool = False) -> Reliability:
    """Confidence and accuracy bin by bin: the reliability diagram and the expected calibration error.

    Bins (low, high] are of equal width on [0, 1] (Guo et al. 2017, arXiv:1706.04599, section 2), or hold equally many
    images up to one (``equal_mass``; Nixon et al. 2019, arXiv:1904.01685); equal confidences then share a bin, so that
    the order of the images has no say.

    Args:
        confidences: max_c p(c), [N].
        correct: bool [N].

    Raises:
        DataError: no images, or confidences outside [0, 1].

    >>> r = reliability(torch.tensor([0.9, 0.9, 0.9, 0.9]), torch.tensor([True, True, True, False]))
    >>> round(r.error, 6)
    0.15
    """
    c, right = _confidences(confidences), correct.double().cpu()
    which, edges = _bins(c, bins, equal_mass)
    count = which.bincount(minlength=bins)
    mean = [which.bincount(x, minlength=bins) / count.clamp_min(1) for x in (c, right)]
    return Reliability(edges[:-1], edges[1:], mean[0], mean[1], count)


def calibration_error(
    confidences: Tensor,
    correct: Tensor,
    bins: int = BINS,
    equal_mass: bool = False,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The expected calibration error with a 95 % bootstrap interval over images (bins held fixed).

    ECE estimated in bins is never negative and hence biased: upwards by the noise of each bin's accuracy (see
    :func:`calibration_floor`), downwards by what cancels inside a bin. Resampling adds the noise once more, so the
    resamples are moved to have the estimate as their mean: the interval tells the spread over images, not the bias.

    Source: Guo et al. 2017, eq. 3; bias: Kumar, Liang and Ma 2019, arXiv:1909.10155. The moved interval is ours.
    """
    c, right = _confidences(confidences), correct.double().cpu()
    which, n = _bins(c, bins, equal_mass)[0].numpy(), len(c)
    gaps, random = (right - c).numpy(), np.random.default_rng(seed)
    value = float(np.abs(np.bincount(which, gaps)).sum() / n)
    found = np.empty(resamples)
    for draw in range(resamples):
        rows = random.integers(0, n, n)
        found[draw] = np.abs(np.bincount(which[rows], gaps[rows])).sum() / n
    low, high = np.percentile(found - found.mean(), [2.5, 97.5])
    return Estimate(value, max(0.0, value + float(low)), min(1.0, value + float(high)))


def calibration_floor(confidences: Tensor, bins: int = BINS, equal_mass: bool = False) -> float:
    """What :func:`calibration_error` shows on average of a perfectly calibrated classifier with these confidences.

    Each bin's gap is then a mean of n_b independent Bernoulli errors: about normal, with E|gap| = sqrt(2 v / pi),
    v = sum_i c_i (1 - c_i) / n_b^2. Ours.

    >>> round(calibration_floor(torch.full((1000,), 0.8)), 4)
    0.0101
    """
    c = _confidences(confidences)
    variance = _bins(c, bins, equal_mass)[0].bincount(c * (1 - c), minlength=bins)  # n_b^2 v     [B]
    return float((2 / math.pi * variance).sqrt().sum() / len(c))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """T > 0 that minimises the mean negative log likelihood of softmax(logits / T); give held-out *training* images.

    The likelihood is concave in b = 1 / T, so its slope mean_i sum_c p_ic (z_iy - z_ic) has one root, found by
    bisection among 0.01 <= T <= 100; a root beyond gives the end (logits that are all right want T = 0).

    Raises:
        DataError: no images, or logits that are not finite.

    Source: Guo et al. 2017, section 4.2.

    >>> round(fit_temperature(torch.tensor([[2.0, 0.0]]).repeat(4, 1), torch.tensor([0, 0, 0, 1])), 6)  # 2 / log 3
    1.820478
    """
    z = _double(logits)
    if len(z) == 0 or not bool(torch.isfinite(z).all()):
        raise DataError("A temperature needs finite logits of at least one image.", "Hold training images out.")
    lead = z.gather(1, labels[:, None].to(z.device)) - z  # z_iy - z_ic     [N, C]

    def slope(b: float) -> float:
        return float(((b * z).softmax(1) * lead).sum(1).mean())

    if slope(1.0) == 0:  # also logits that say nothing, whose slope is 0 everywhere
        return 1.0
    low, high = math.log(1 / HIGHEST), math.log(1 / LOWEST)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) >= 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def vote_shares(votes: Tensor) -> Tensor:
    """People's votes or probabilities as a distribution for each image, [N, C] -> float64 [N, C].

    Raises:
        DataError: negative or non-finite entries, or an image without votes.
    """
    q = _double(votes)
    if q.ndim != 2 or not bool(torch.isfinite(q).all()) or bool((q < 0).any()):
        raise DataError("Soft labels are finite and not negative, [images, classes].", "Give votes or probabilities.")
    if bool((empty := q.sum(1) == 0).any()):
        raise DataError(f"{int(empty.sum())} image(s) have no votes.", "Give at least one vote for each image.")
    return q / q.sum(1, keepdim=True)


def entropy(shares: Tensor) -> Tensor:
    """H(q) = -sum_c q(c) log2 q(c) in bits, [N, C] -> [N].

    >>> entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    nats: Tensor = torch.special.entr(shares).sum(1)
    return nats / math.log(2)


def cross_entropy(logits: Tensor, shares: Tensor) -> Tensor:
    """-sum_c q(c) log2 p(c) in bits, q people's votes, p the classifier, [N, C] x [N, C] -> float64 [N].

    KL(q || p) is this less :func:`entropy` of q. Source: Peterson et al. 2019, arXiv:1908.07086.

    >>> cross_entropy(torch.zeros(1, 4), torch.tensor([[0.5, 0.5, 0.0, 0.0]])).tolist()
    [2.0]
    """
    return -(shares.double() * _double(logits).log_softmax(1)).sum(1) / math.log(2)


def _bins(c: Tensor, bins: int, equal_mass: bool) -> tuple[Tensor, Tensor]:
    """The bin of each confidence, int64 [N], and the edges of the bins, [B + 1]."""
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    if equal_mass:
        last = (torch.arange(1, bins) * len(c) / bins).ceil().long() - 1  # of each bin but the last, in rising order
        edges[1:-1] = c.sort().values[last.clamp_min(0)]
    return torch.searchsorted(edges[1:-1].contiguous(), c), edges  # (low, high]


def _confidences(confidences: Tensor) -> Tensor:
    c = confidences.detach().double().cpu()
    if len(c) == 0 or not bool(((c >= 0) & (c <= 1 + 1e-12)).all()):
        raise DataError("A calibration error needs confidences between 0 and 1.", "Give the largest probabilities.")
    return c


def _double(x: Tensor) -> Tensor:
    """float64; on the CPU where the device has none."""
    return x.detach().cpu().double() if x.device.type == "mps" else x.detach().double()

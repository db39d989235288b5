"""How unsure a representation is of each image: scores that are higher where an image is *less* certain.

From a probe's logits, from features alone, from the views of an image, and from a code that is drawn.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from compressl.errors import DataError
from compressl.measures.knn import nearest
from compressl.objectives.von_mises_fisher import mean_resultant_length
from compressl.randomness import generator

CLOSEST = 1e-7  # resolution of a cosine of float32 features: resultants are held this far from 0 and 1


class Drawn(Protocol):
    """What is asked of a density of codes for each of N images (:mod:`compressl.measures.channels`)."""

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One code per image, [N, D]."""

    def entropy(self) -> Tensor:
        """In nats, [N]."""


def predictive_entropy(logits: Tensor) -> Tensor:
    """H(p) = -sum_c p(c) log2 p(c) of the classifier, in bits, [N, C] -> [N].

    >>> predictive_entropy(torch.zeros(1, 4)).tolist()
    [2.0]
    """
    log_p = _double(logits).log_softmax(1)
    return -(log_p.exp() * log_p).sum(1) / math.log(2)


def least_confidence(logits: Tensor) -> Tensor:
    """1 - max_c p(c), [N, C] -> [N] (Hendrycks and Gimpel 2017, arXiv:1610.02136), exact also near 0.

    >>> least_confidence(torch.tensor([[0.0, 0.0]])).tolist()
    [0.5]
    """
    p = _double(logits).softmax(1)
    first = F.one_hot(p.argmax(1), p.shape[1]).bool()
    return p.masked_fill(first, 0).sum(1)  # the sum of the others: 1 - p would round to 0 for many images


def negative_norm(features: Tensor) -> Tensor:
    """-||h||, [N, F] -> [N]. That a small norm means doubt is a conjecture, which the other figures test.

    >>> negative_norm(torch.tensor([[3.0, 4.0]])).tolist()
    [-5.0]
    """
    length: Tensor = torch.linalg.vector_norm(features.float(), dim=1)
    return -length


def knn_distance(bank: Tensor, queries: Tensor, k: int) -> Tensor:
    """1 - cosine to the k-th nearest training image, [M, F] x [N, F] -> [N]; k is at most M.

    Source: Sun et al. 2022, arXiv:2204.06507 (the Euclidean distance on the sphere, which orders alike).

    >>> knn_distance(torch.eye(2), torch.tensor([[2.0, 0.0]]), k=2).tolist()
    [1.0]
    """
    return 1 - nearest(bank, queries, k)[0][:, -1]


def dispersion(views: Tensor) -> Tensor:
    """1 - R of an image's views, R = || 1/A sum_a h_a / ||h_a|| ||, [N, A, F] -> float64 [N].

    R, the mean resultant length, is the mean cosine of the views to their mean direction. It is biased upwards with few
    views: E[R^2] = rho^2 + (1 - rho^2) / A, so compare figures of as many views.

    Raises:
        DataError: fewer than two views.

    >>> dispersion(torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])).tolist()  # 1 - sqrt(1/2)
    [0.2928932188134524]
    """
    if views.shape[1] < 2:
        raise DataError(f"A dispersion needs two views of each image; there are {views.shape[1]}.", "Give more views.")
    u = F.normalize(views.detach().cpu().double(), dim=2)
    resultant: Tensor = torch.linalg.vector_norm(u.mean(1), dim=1)
    return 1 - resultant


def concentration(resultant: Tensor, dim: int) -> Tensor:
    """The vMF concentration whose mean cosine is R: the root of A_d(kappa) = R, any shape, float64.

    The maximum-likelihood estimate from an image's views. A_d rises and is concave, so Newton's steps with
    A' = 1 - A^2 - (d - 1) A / kappa (Sra 2012) from :func:`approximate_concentration` rise to the root. R is held
    between 1e-7 and 1 - 1e-7, what cosines of float32 features can tell.

    >>> from compressl.objectives.von_mises_fisher import VonMisesFisher
    >>> r = VonMisesFisher(128, 32.0).mean_resultant_length
    >>> round(float(concentration(torch.tensor(r, dtype=torch.float64), 128)), 9)
    32.0
    """
    r = resultant.double().clamp(CLOSEST, 1 - CLOSEST)
    kappa = approximate_concentration(r, dim)
    for _ in range(12):
        a = mean_resultant_length(kappa, dim)
        slope = 1 - a.square() - (dim - 1) * a / kappa
        kappa = torch.where(slope > 0, kappa - (a - r) / slope, kappa).clamp_min(1e-12)
    return kappa


def approximate_concentration(resultant: Tensor, dim: int) -> Tensor:
    """kappa = R (d - R^2) / (1 - R^2), any shape (Banerjee et al. 2005, "Clustering on the unit hypersphere", eq. 4.4).

    >>> approximate_concentration(torch.tensor(0.5, dtype=torch.float64), 3).item()
    1.8333333333333333
    """
    return resultant * (dim - resultant.square()) / (1 - resultant.square())


def disagreement(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Of predictions from S draws of a code, in bits: (entropy of their mean, how much of it is the draw's doing).

    [S, N, C] -> [N], [N].  H(mean_s p_s)  and  H(mean_s p_s) - mean_s H(p_s) = I(y; z | x), the second at most log2 S.

    Source: Houlsby et al. 2011, arXiv:1112.5745 (there for draws of weights).

    >>> total, spread = disagreement(torch.tensor([[[50.0, 0.0]], [[0.0, 50.0]]]))
    >>> total.tolist(), spread.tolist()
    ([1.0], [1.0])
    """
    p = _double(logits).softmax(2)
    total = torch.special.entr(p.mean(0)).sum(1)
    each = torch.special.entr(p).sum(2).mean(0)
    return total / math.log(2), (total - each).clamp_min(0) / math.log(2)


def draws(channel: Drawn, count: int, seed: int = 0) -> Tensor:
    """``count`` codes of each image, [count, N, D]; the same for the same seed."""
    return torch.stack([channel.sample(generator("uncertainty draw", seed, draw)) for draw in range(count)])


def code_entropy(channel: Drawn) -> Tensor:
    """H(Z | x) of each image's code in bits, [N]: of bits a number of bits, of continuous codes a differential entropy.

    >>> from compressl.measures.channels import BernoulliChannel
    >>> code_entropy(BernoulliChannel(torch.zeros(1, 3))).tolist()
    [3.0]
    """
    return channel.entropy() / math.log(2)


def _double(x: Tensor) -> Tensor:
    """float64: sure predictions differ in digits that float32 lacks. On the CPU where the device has none."""
    return x.detach().cpu().double() if x.device.type == "mps" else x.detach().double()

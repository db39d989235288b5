"""Accuracy from few labels: which images are labelled in each draw, and what the draws say together."""

from __future__ import annotations

import math

import torch
from scipy.special import stdtrit
from torch import Tensor

from compressl.errors import DataError
from compressl.measures.intervals import Estimate
from compressl.randomness import generator


def rank_in_class(labels: Tensor, purpose: str, *parts: int) -> tuple[Tensor, Tensor]:
    """A random order of the images of each class, a function of (purpose, parts): int64 [N], 0 comes first.

    Also the size of each image's class, int64 [N].

    >>> rank, size = rank_in_class(torch.tensor([0, 1, 0, 0]), "toy", 0)
    >>> sorted(rank[[0, 2, 3]].tolist()), rank[1].item(), size.tolist()
    ([0, 1, 2], 0, [3, 1, 3, 3])
    """
    order = torch.randperm(len(labels), generator=generator(purpose, *parts)).to(labels.device)
    order = order[labels[order].sort(stable=True).indices]  # class after class, shuffled within
    sizes = labels.bincount()
    first = sizes.cumsum(0) - sizes  # where each class begins
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(labels), device=labels.device) - first[labels[order]]
    return rank, sizes[labels]


def draw_shots(labels: Tensor, shots: int, seed: int, draw: int) -> Tensor:
    """Rows of ``shots`` images of each class, int64 in rising order.

    A draw is nested: its images for fewer shots are among those for more, and among those of a share that has as many.

    Args:
        labels: int64 [N].

    Raises:
        DataError: a class has fewer images.

    >>> draw_shots(torch.tensor([0, 0, 1, 1]), 2, seed=0, draw=0).tolist()
    [0, 1, 2, 3]
    """
    rank, sizes = rank_in_class(labels, "few labels", seed, draw)
    if int(sizes.min()) < shots:
        raise DataError(
            f"The smallest class has {int(sizes.min())} training images, fewer than {shots}.", "Ask for fewer --shots."
        )
    return (rank < shots).nonzero()[:, 0]


def draw_fraction(labels: Tensor, fraction: float, seed: int, draw: int) -> Tensor:
    """Rows of a share of the images of each class, rounded and at least one of each; int64 in rising order.

    Nested as in :func:`draw_shots`, with which it shares the order of images.

    >>> len(draw_fraction(torch.arange(200) % 2, 0.1, seed=0, draw=0))
    20
    """
    rank, sizes = rank_in_class(labels, "few labels", seed, draw)
    wanted = (sizes.double() * fraction + 0.5).floor().clamp_min(1)
    return (rank < wanted).nonzero()[:, 0]


def over_draws(correct: Tensor) -> Estimate:
    """Mean accuracy over draws of labels, with a 95 % interval over new draws and new test images (ours)::

        value = mean of correct                                            correct[d, i]: draw d, test image i
        value +- t(0.975; D - 1) sqrt( s_draws^2 / D + s_images^2 / N )    cut off at 0 and 1

    s_draws is the standard deviation of the accuracies of the D draws (D - 1), s_images that of the N images' mean
    correctness over the draws (N - 1). A draw's accuracy varies with its labels while the test images stay; the second
    term adds what another test set would change. Where both act together is counted twice: the interval is cautious.

    Args:
        correct: bool [D, N].

    Raises:
        DataError: fewer than two draws or two test images.

    >>> over_draws(torch.tensor([[True, True, False, False], [True, True, True, False]])).value
    0.625
    """
    draws, images = correct.shape
    if min(draws, images) < 2:
        raise DataError(
            f"{draws} draws of labels and {images} test images give no interval.", "Have two of each at least."
        )
    right = correct.double()
    variance = float(right.mean(1).var() / draws + right.mean(0).var() / images)
    value, half = float(right.mean()), float(stdtrit(draws - 1, 0.975)) * math.sqrt(variance)
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))

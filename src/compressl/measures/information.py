"""How much a code says about an image and about the view it was taken from: bounds where e(z|x) is known.

Where the density of the code is known, mutual information needs no critic. With x_1 .. x_N drawn independently and one
z_i ~ e(.|x_i) for each, the marginal p(z) = E_x e(z|x) is replaced by a mean over the sample, and Jensen's inequality
says which way that errs (Poole et al. 2019, "On Variational Bounds of Mutual Information", arXiv:1905.06922, sections
2.1 and 2.3):

    upper:  I(X;Z) <= E[ log e(z_i|x_i) - log 1/(N-1) sum_{j != i} e(z_i|x_j) ]
            the mean is independent of z_i and unbiased for p(z_i), and E log <= log E;
    lower:  I(X;Z) >= E[ log e(z_i|x_i) - log 1/N sum_j e(z_i|x_j) ],  at most log N
            this is I(J; Z | x_1 .. x_N) for a J that is uniform on 1 .. N, and I(X;Z) is that plus I(x_1 .. x_N; Z)
            (InfoNCE with the best critic; van den Oord et al. 2018, arXiv:1807.03748).

An image X has views V, and a code is that of a view: X -> V -> Z. What the code says about its view is then

    I(V;Z) = I(X;Z) + I(V;Z|X):    total = kept + superfluous.

Kept tells which image it is, superfluous which augmentation was drawn. With A views of each image and one z_ia for each
view, all bounds come from four numbers a code (:class:`Densities`): l = log e(z_ia|v_ia), and the logarithms of means,

    S = log 1/A sum_b e(z_ia|v_ib)                        views of the same image, its own included
    L = log 1/(A-1) sum_{b != a} e(z_ia|v_ib)             views of the same image, its own left out
    M = log 1/((N-1)A) sum_{j != i} sum_b e(z_ia|v_jb)    views of all other images

By the two arguments above, given the image for the first and without for the second:

    E L <= E log p(z|x) <= E S,    E M <= E log p(z) <= E log 1/N [e^S + (N-1) e^M]

    superfluous:  E[l - S] <= I(V;Z|X) <= E[l - L],                              lower at most log A
    total:        E[l - log 1/N (e^S + (N-1) e^M)] <= I(V;Z) <= E[l - M],        lower at most log NA
    kept:         E[L - log 1/N (e^L + (N-1) e^M)] <= I(X;Z) <= E[S - M],        lower at most log N

The views of the lower bound of the total need not be independent: the argument by J holds for any. The lower bound of
kept is InfoNCE between Z and the other A - 1 views of its image, W, with the critic (z, w) -> 1/(A-1) sum_b e(z|w_b):
I(X;Z) >= I(W;Z) by data processing. The mean over the others' A views in place of A - 1 of them varies less and has the
same expectation, which can only lower the bound (-log is convex). In expectation it is at least the difference of the
total's lower and the superfluous' upper bound, which has e^S in the place of the second e^L. Its use here is ours.

A lower bound near its ceiling says only that there is at least so much: see :attr:`Bounds.saturated`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compressl.errors import DataError, UsageError
from compressl.measures.channels import Channel

CHUNK = 1 << 22  # log-densities at a time: bounds memory, whatever N
NEAR = 0.1  # nats from its ceiling at which a lower bound is called saturated


@dataclass(frozen=True)
class Bounds:
    """Bounds of an information in nats, as terms of each image whose means bound it in expectation.

    On a sample the means err by about their standard error, so that a lower one can pass an upper one by that much.
    """

    lower: Tensor
    """[N]."""
    upper: Tensor
    """[N]."""
    ceiling: float
    """What the mean of ``lower`` cannot pass, however much there is."""

    @property
    def saturated(self) -> bool:
        """Whether the lower bound lies within 0.1 nat of its ceiling, where it stops to tell codes apart."""
        return float(self.lower.mean()) > self.ceiling - NEAR

    @property
    def standard_error(self) -> tuple[float, float]:
        """Of the means of ``lower`` and ``upper`` over images, the others of the sample taken as they are."""
        lower, upper = (float(terms.double().std() / math.sqrt(len(terms))) for terms in (self.lower, self.upper))
        return lower, upper


@dataclass(frozen=True)
class Split:
    """I(V;Z) = I(X;Z) + I(V;Z|X), each bounded."""

    total: Bounds
    kept: Bounds
    superfluous: Bounds


@dataclass(frozen=True)
class Densities:
    """Log-densities of codes z_ia, and logarithms of mean densities, in nats: all [N, A]. See the module's text."""

    own: Tensor
    """l: given the view that was encoded."""
    same: Tensor
    """S: mean over all views of its image."""
    siblings: Tensor
    """L: mean over the other views of its image; -inf where there are none."""
    others: Tensor
    """M: mean over all views of the other images."""


def mutual_information(channel: Channel, generator: torch.Generator | None = None) -> Bounds:
    """I(X;Z) between what the channel's N rows encode, drawn independently, and one code each.

    Raises:
        DataError: fewer than two rows.

    Source: Poole et al. 2019, arXiv:1905.06922, sections 2.1 (upper, leave-one-out) and 2.3 (lower).

    >>> from compressl.measures.channels import GaussianChannel
    >>> noise = torch.Generator().manual_seed(0)
    >>> x = 2 * torch.randn(400, 1, generator=noise)  # I(X;Z) = log(1 + 2^2) / 2 = 0.80
    >>> bounds = mutual_information(GaussianChannel(x, torch.ones(400, 1)), noise)
    >>> round(float(bounds.lower.mean()), 2), round(float(bounds.upper.mean()), 2), bounds.saturated
    (0.75, 0.76, False)
    """
    d = densities(channel, 1, generator)
    marginal = _with(d.own, d.others)
    return Bounds((d.own - marginal).mean(1), (d.own - d.others).mean(1), math.log(len(channel)))


def split_information(channel: Channel, views: int, generator: torch.Generator | None = None) -> Split:
    """What codes say about their views, split into what they say about the image and what is superfluous.

    Args:
        channel: e(z|v) of N * A views, those of an image next to one another.
        views: A, at least 2.

    Raises:
        UsageError: fewer than two views, or rows that are not A for each image.
        DataError: fewer than two images.

    Source: see the module's text; the bounds are those of Poole et al. 2019, their use on views is ours.

    >>> from compressl.measures.channels import VonMisesFisherChannel
    >>> image = torch.eye(8).repeat_interleave(4, 0)  # 8 images far apart, whose 4 views are alike
    >>> split = split_information(VonMisesFisherChannel(image, 200.0), 4, torch.Generator().manual_seed(0))
    >>> round(float(split.kept.lower.mean()), 3), split.kept.saturated  # log 8: all that 8 images can show
    (2.079, True)
    >>> bool(split.superfluous.upper.abs().max() < 1e-4)  # nothing tells the views of an image apart
    True
    """
    if views < 2:
        raise UsageError(f"There is {views} view of each image.", "Draw at least 2: their difference is the question.")
    d, images = densities(channel, views, generator), len(channel) // views
    total = Bounds((d.own - _with(d.same, d.others)).mean(1), (d.own - d.others).mean(1), math.log(len(channel)))
    kept_terms = d.siblings - _with(d.siblings, d.others)  # L - log 1/N (e^L + (N-1) e^M)     [N, A]
    kept = Bounds(kept_terms.mean(1), (d.same - d.others).mean(1), math.log(images))
    superfluous = Bounds((d.own - d.same).mean(1), (d.own - d.siblings).mean(1), math.log(views))
    return Split(total, kept, superfluous)


@torch.no_grad()
def densities(channel: Channel, views: int, generator: torch.Generator | None = None) -> Densities:
    """One code for each row, and its log-density given its own view, its siblings and the others.

    Works in chunks: the memory is that of :data:`CHUNK` log-densities (and one image's), not N A x N A.

    Args:
        channel: N * A rows, those of an image next to one another.
        views: A.

    Raises:
        UsageError: rows that are not A for each image.
        DataError: fewer than two images, or densities that are not finite.
    """
    if len(channel) % views:
        raise UsageError(f"{len(channel)} rows are not {views} views of each image.", "Give A rows for each image.")
    images = len(channel) // views
    if images < 2:
        raise DataError("There is one image only.", "A bound of information needs other images to compare it with.")
    z = channel.sample(generator)
    rows = views * max(1, math.isqrt(CHUNK) // views)  # of whole images
    blocks = [channel[first : first + rows] for first in range(0, len(channel), rows)]
    parts = [_part(blocks, number, codes, images, views) for number, codes in enumerate(torch.split(z, rows))]
    own, same, siblings, others = (torch.cat(column) for column in zip(*parts, strict=True))
    if not bool(torch.isfinite(torch.stack([own, same, others])).all()):
        raise DataError("Some log-densities are not finite.", "The channel has numbers too large to compute with.")
    return Densities(own, same, siblings, others)


def _part(
    blocks: Sequence[Channel], number: int, z: Tensor, images: int, views: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The densities of the codes of one block of rows given every block, [B A, D] -> four of [B, A]."""
    here, others = torch.arange(len(z) // views, device=z.device), z.new_full((len(z),), -math.inf)
    within = z.new_empty(0)
    for other, block in enumerate(blocks):
        log_e = block.log_density(z)  # [B A, B' A]
        others = others.to(log_e)
        if other == number:
            pairs = log_e.view(len(here), views, len(here), views)
            within = pairs[here, :, here]  # log e(z_ia|v_ib)     [B, A, A]
            pairs[here, :, here] = -math.inf
        others = torch.logaddexp(others, log_e.logsumexp(1))
    own = within.diagonal(dim1=1, dim2=2)
    same = within.logsumexp(2) - math.log(views)
    diagonal = torch.eye(views, dtype=torch.bool, device=z.device)
    siblings = within.masked_fill(diagonal, -math.inf).logsumexp(2) - math.log(max(1, views - 1))
    return own, same, siblings, others.view(-1, views) - math.log((images - 1) * views)


def _with(image: Tensor, others: Tensor) -> Tensor:
    """log 1/N (e^S + (N-1) e^M): the mean over all images, [N, A] x [N, A] -> [N, A]."""
    n = len(image)
    return torch.logaddexp(image, others + math.log(n - 1)) - math.log(n)


def superfluous_at(level: float, kept: Sequence[float], superfluous: Sequence[float]) -> float | None:
    """What is superfluous where a first of ever sharper channels keeps ``level``, or None where none does.

    A code without noise says everything about its view; only at a stated sharpness does it say some bits. Codes are
    compared where they keep equally much: the price of that much. Between channels it is interpolated, the first one
    from a code that says nothing. Ours.

    Args:
        level: in the unit of the others.
        kept, superfluous: of channels in the order of their sharpness.

    >>> superfluous_at(3.0, kept=[2.0, 4.0, 3.0], superfluous=[0.5, 1.5, 9.0])
    1.0
    >>> superfluous_at(5.0, kept=[2.0, 4.0], superfluous=[0.5, 1.5]) is None
    True
    """
    before = (0.0, 0.0)
    for now in zip(kept, superfluous, strict=True):
        if now[0] >= level:
            share = (level - before[0]) / (now[0] - before[0])
            return before[1] + share * (now[1] - before[1])
        before = now
    return None

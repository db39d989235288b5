"""How views of an image lie to one another and to those of other images.

Everywhere ``views`` are features [N, A, F] of A random views of N images. What is a mean over images is given as the
values of the images [N], so that an interval can be drawn from them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from compressl.errors import DataError
from compressl.measures.spectrum import ABSOLUTE, RELATIVE
from compressl.objectives.von_mises_fisher import VonMisesFisher

CHUNK = 2048  # rows at a time: bounds N x N tables


def alignment(views: Tensor) -> Tensor:
    """mean_{a != b} ||u_a - u_b||^2 for each image, u = z / ||z||: [N, A, F] -> [N]. Ideal 0; 2 if unrelated.

    Over distinct pairs of views (Wang and Isola 2020, arXiv:2005.10242, section 4.1, alpha = 2). Times (A - 1) / A it
    is the estimator of Dubois et al. 2023 (arXiv:2302.03068, released code), which is biased: half of it for A = 2.

    >>> alignment(torch.tensor([[[2.0, 0.0], [0.0, 3.0]], [[1.0, 0.0], [5.0, 0.0]]])).tolist()
    [2.0, 0.0]
    """
    u = F.normalize(check_views(views), dim=-1)
    count = u.shape[1]
    spread = (u - u.mean(1, keepdim=True)).square().sum(-1).mean(1)  # mean_a ||u_a - u_mean||^2     [N]
    return 2 * count / (count - 1) * spread


def cosines(views: Tensor) -> Tensor:
    """mean_{a != b} u_a^T u_b for each image, [N, A, F] -> [N]: 1 - alignment / 2. Ideal 1."""
    return 1 - alignment(views) / 2


def cosines_to(anchor: Tensor, views: Tensor) -> Tensor:
    """Mean cosine of an image's anchor to its views, [N, F] x [N, A, F] -> [N].

    >>> cosines_to(torch.eye(2), torch.tensor([[[2.0, 0.0]], [[3.0, 4.0]]]))
    tensor([1.0000, 0.8000])
    """
    u = F.normalize(_floating(views), dim=-1).mean(1)
    return (F.normalize(_floating(anchor), dim=-1) * u).sum(-1)


def permuted(views: Tensor, generator: torch.Generator) -> Tensor:
    """The same views dealt to images at random, [N, A, F]: the null of every measure of invariance.

    View 0 stays with its image; each other view goes around one random cycle of all images, another for each view, so
    that no image keeps its own. The permutations are drawn on the generator's device.

    >>> views = torch.arange(4.0).view(4, 1, 1).expand(4, 2, 1)
    >>> mixed = permuted(views, torch.Generator().manual_seed(0))
    >>> bool((mixed[:, 0] == mixed[:, 1]).any()), sorted(mixed[:, 1, 0].tolist())
    (False, [0.0, 1.0, 2.0, 3.0])
    """
    mixed = check_views(views).clone()
    for number in range(1, views.shape[1]):
        cycle = torch.randperm(len(views), generator=generator, device=generator.device).to(views.device)
        mixed[cycle, number] = views[cycle.roll(1), number]
    return mixed


def uniformity(features: Tensor, t: float = 2.0) -> Tensor:
    """mean_{j != i} exp(-t ||u_i - u_j||^2) for each image, [N, F] -> [N].

    The uniformity of Wang and Isola 2020 (arXiv:2005.10242, section 4.1) is the log of the mean of these.

    >>> uniformity(torch.eye(2)).log().tolist()
    [-4.0, -4.0]
    """
    u = F.normalize(_floating(features), dim=-1)
    if len(u) < 2:
        raise DataError("Uniformity compares images; there is one.", "Give at least two.")
    rows = []
    for start in range(0, len(u), CHUNK):
        kernel = (2 * t * (u[start : start + CHUNK] @ u.T - 1)).exp()  # ||u - v||^2 = 2 - 2 u^T v     [chunk, N]
        _diagonal(kernel, start).zero_()
        rows.append(kernel.sum(1) / (len(u) - 1))
    return torch.cat(rows)


def variances(views: Tensor) -> tuple[Tensor, Tensor]:
    """Within and between images: (mean_a ||z_a - mu_i||^2, ||mu_i - mu||^2), each [N]; [N, A, F] without normalising.

    mu_i is the mean of an image's views, mu that of all. The variance ratio is the mean of the first over the mean of
    the second (Dubois et al. 2023, arXiv:2302.03068, released code). Ideal 0. At infinitely many images of unrelated
    views it is A - 1, not 1, since the mean of A views varies too.

    >>> [x.tolist() for x in variances(torch.tensor([[[0.0], [2.0]], [[4.0], [6.0]]]))]
    [[1.0, 1.0], [4.0, 4.0]]
    """
    z = check_views(views)
    means = z.mean(1)  # [N, F]
    within = (z - means[:, None]).square().sum(-1).mean(1)
    return within, (means - means.mean(0)).square().sum(-1)


def nc1(views: Tensor) -> float:
    """trace(Sigma_B^+ Sigma_W): variability within images relative to that between them, [N, A, F]. Ideal 0.

    Sigma_W is the mean of the images' covariances (over A - 1), Sigma_B the covariance of their means (over N - 1); the
    pseudo-inverse keeps eigenvalues above max(1e-4, 0.01 lambda_max). Not comparable between representations of
    different rank: a collapse lowers it. Source: Papyan, Han and Donoho 2020, arXiv:2008.08186 (definition); Dubois et
    al. 2023, released code (cut, images as classes).

    Raises:
        DataError: no eigenvalue of Sigma_B lies above the cut.
    """
    z = check_views(views).double() if views.device.type != "mps" else check_views(views).cpu().double()
    n, count, _ = z.shape
    means = z.mean(1)
    rest, centred = z - means[:, None], means - means.mean(0)
    eigenvalues, vectors = torch.linalg.eigh(centred.T @ centred / (n - 1))  # Sigma_B
    kept = eigenvalues > max(ABSOLUTE, RELATIVE * float(eigenvalues.max()))
    if not bool(kept.any()):
        raise DataError("The images' mean features vary by less than 1e-4.", "The representation collapsed.")
    within = (rest @ vectors[:, kept]).square().sum((0, 1)) / (n * (count - 1))  # diagonal of Sigma_W in this basis
    return float((within / eigenvalues[kept]).sum())


def centred_cosines(views: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines after centring each view by its mean over images: (positives, negatives), each [N].

    Positives are views a != b of one image (ideal 1), negatives views a != b of image i and the others (ideal
    -1 / (K - 1) for K images as a regular simplex). Source: Dubois et al. 2022, arXiv:2209.06235, released code (there
    with a running mean).
    """
    z = check_views(views)
    u = F.normalize(z - z.mean(0), dim=-1)  # [N, A, F]
    n, count, _ = u.shape
    own = u.sum(1)  # [N, F]
    positives = (own.square().sum(-1) - u.square().sum((1, 2))) / (count * (count - 1))
    totals = u.sum(0)  # [A, F]
    across = own @ totals.sum(0) - (u * totals).sum((1, 2))  # sum_{a != b} u_ia^T sum_j u_jb     [N]
    return positives, (across / (count * (count - 1)) - positives) / (n - 1)


def retrieval(views: Tensor) -> Tensor:
    """Share of an image's views whose nearest neighbour by cosine, among view a + 1 of all images, is its own: [N].

    Views go round: the last is looked up among the first. Between k equally near images it counts 1 / k, so a collapse
    scores 1 / N. Ideal 1.
    """
    u = F.normalize(check_views(views), dim=-1)
    n, count, _ = u.shape
    right = u.new_zeros(n)
    for a in range(count):
        queries, gallery = u[:, a], u[:, (a + 1) % count]
        for start in range(0, n, CHUNK):
            near = queries[start : start + CHUNK] @ gallery.T  # [chunk, N]
            own = _diagonal(near, start)[:, None]
            ties = (near == own).sum(1)
            right[start : start + CHUNK] += torch.where((near > own).any(1), 0.0, 1.0 / ties)
    return right / count


def kernel_entropy(features: Tensor, kappa: float, leave_one_out: bool = True) -> Tensor:
    """-log p_i of each image, p the mean of vMF(u_j, kappa) over the images: nats, [N, F] -> [N].

    Leaving the image itself out, the mean is a cross entropy: in expectation at least the differential entropy of u
    with respect to surface area. With the image itself it is smaller, the more so the larger kappa. The most that the
    entropy can be is the log of the sphere's area, ``VonMisesFisher(F, 0).entropy``.

    Source: resubstitution and leave-one-out estimators (Beirlant et al. 1997); with the vMF kernel, Rodriguez-Galvez et
    al. 2023, arXiv:2307.10907.
    """
    u = F.normalize(_floating(features), dim=-1)
    n = len(u)
    if n < 2:
        raise DataError("An entropy is of many images; there is one.", "Give at least two.")
    vmf = VonMisesFisher(u.shape[1], kappa)
    rows = []
    for start in range(0, n, CHUNK):
        exponent = kappa * (u[start : start + CHUNK] @ u.T - 1)  # [chunk, N]
        if leave_one_out:
            _diagonal(exponent, start).fill_(-math.inf)
        rows.append(exponent.logsumexp(1))
    return math.log(n - leave_one_out) - vmf.log_scaled_normalizer - torch.cat(rows)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Values of the images whose mean is mean(a) / mean(b), [N] x [N] -> [N], for the interval of a ratio of means.

    mean(a) / mean(b) + (a_i - mean(a) / mean(b) b_i) / mean(b): the ratio to first order in the weight of an image
    (its influence function; the infinitesimal jackknife).

    Raises:
        DataError: the denominator is 0.

    >>> ratio(torch.tensor([1.0, 3.0]), torch.tensor([4.0, 4.0])).tolist()
    [0.25, 0.75]
    """
    a, b = numerator.double().cpu(), denominator.double().cpu()
    if not float(b.mean()) > 0:
        raise DataError("The images do not differ.", "The representation collapsed; pretrain again.")
    whole = a.mean() / b.mean()
    return whole + (a - whole * b) / b.mean()


def log_of_mean(values: Tensor, pairs: bool = True) -> Tensor:
    """Values of the images whose mean is log(mean(v)), [N] -> [N], as :func:`ratio`.

    ``pairs``: v_i is a mean over the other images, so an image counts twice, in its own mean and in those of others.

    >>> log_of_mean(torch.tensor([1.0, 3.0])).tolist()
    [-0.3068528194400547, 1.6931471805599454]
    """
    v = values.double().cpu()
    if not float(v.mean()) > 0:
        raise DataError("The values are all 0, so that their mean has no log.")
    return v.mean().log() + (2 if pairs else 1) * (v / v.mean() - 1)


def check_views(views: Tensor) -> Tensor:
    """Views as at least float32.

    Raises:
        DataError: not [N, A, F] with two images and two views at least, or not finite.
    """
    if views.ndim != 3 or views.shape[0] < 2 or views.shape[1] < 2:
        raise DataError(
            f"The features of views have the shape {list(views.shape)}.",
            "Give [images, views, dimensions] with at least two images and two views.",
        )
    if not bool(torch.isfinite(views).all()):
        raise DataError("Some features are not finite.", "The training diverged; pretrain again.")
    return _floating(views)


def _floating(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _diagonal(table: Tensor, start: int) -> Tensor:
    """Where row i of a chunk meets column start + i: a view that can be written to."""
    return table[:, start : start + len(table)].diagonal()

"""How far features move when the image moves: bounds over pairs, and the slope at an image.

The distance of images is rho = ||x - x'||_2 over all pixels and channels, values in [0, 1] (not normalised by mean and
deviation). The distance of features is ||mu - mu'||_2 of unit rows mu. Every ratio of a pair, and every local slope, is
a lower bound of the Lipschitz constant of images -> mu for these distances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from compressl.errors import DataError
from compressl.objectives.von_mises_fisher import VonMisesFisher
from compressl.randomness import generator

QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class PairBounds:
    """Per pair [N]: distances, and how much more a stated vMF channel tells of one image than of the other."""

    rho: Tensor
    """||x - x'||_2."""
    distance: Tensor
    """||mu - mu'||."""
    kl: Tensor
    """KL( vMF(mu, kappa) || vMF(mu', kappa) ) = kappa A_d(kappa) (1 - mu^T mu'), nats."""
    sup: Tensor
    """sup_z |log e(z|x) - log e(z|x')| = kappa ||mu - mu'||, nats."""

    def ratio(self, of: str) -> Tensor:
        """``distance``, ``kl`` or ``sup`` over rho, [N]."""
        value: Tensor = getattr(self, of)
        return value / self.rho


def input_distance(x: Tensor, other: Tensor) -> Tensor:
    """rho = ||x - x'||_2 over all axes but the first, [N, ...] x [N, ...] -> [N].

    >>> input_distance(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5))
    tensor([1.7321])
    """
    rho: Tensor = torch.linalg.vector_norm((x - other).flatten(1), dim=1)
    return rho


def pair_bounds(mean: Tensor, other: Tensor, rho: Tensor, kappa: float) -> PairBounds:
    """What pairs of images say about the Lipschitz constant, for e(z|x) = vMF(mu(x), kappa).

    With D(x, x') = sup_z |log e(z|x) - log e(z|x')| as the distance of outputs, L >= kappa ||mu - mu'|| / rho for every
    pair; the mean under e(.|x) gives the weaker L >= kappa A_d(kappa) (1 - mu^T mu') / rho.

    Args:
        mean, other: unit rows mu and mu', [N, D].
        rho: distances of the images, [N]. Pairs of equal images are left out: 0 / 0 says nothing.

    Raises:
        DataError: every pair is of equal images, or something is not finite.

    Source: the idea, Lee et al. 2021, arXiv:2109.12909 (abstract: a lower bound on the Lipschitz constant); these
    formulas are ours.

    >>> mu, other = torch.eye(256)[:1], torch.eye(256)[1:2]
    >>> bounds = pair_bounds(mu, other, torch.ones(1), kappa=1024.0)
    >>> bounds.kl, bounds.sup
    (tensor([904.3529]), tensor([1448.1547]))
    """
    if not all(bool(torch.isfinite(x).all()) for x in (mean, other, rho)):
        raise DataError("Some features or images are not finite.", "The training diverged; pretrain again.")
    apart = rho > 0
    if not bool(apart.any()):
        raise DataError("Every pair is of equal images.", "Give images that differ.")
    mean, other, rho = mean[apart], other[apart], rho[apart]
    vmf = VonMisesFisher(mean.shape[1], kappa)
    distance = torch.linalg.vector_norm(mean - other, dim=1)
    return PairBounds(rho, distance, kl=vmf.kl(mean, vmf, other), sup=kappa * distance)


def summary(values: Tensor) -> dict[str, float]:
    """Maximum, mean and quantiles of [N].

    >>> summary(torch.tensor([0.0, 1.0, 2.0]))
    {'max': 2.0, 'mean': 1.0, 'q05': 0.1, 'q50': 1.0, 'q95': 1.9}
    """
    x = values.double().cpu()
    quantiles = torch.quantile(x, torch.tensor(QUANTILES, dtype=torch.float64)).tolist()
    named = {f"q{round(100 * q):02d}": round(v, 12) for q, v in zip(QUANTILES, quantiles, strict=True)}
    return {"max": float(x.max()), "mean": float(x.mean()), **named}


def interpolate(x: Tensor, other: Tensor, t: float) -> Tensor:
    """x + t (x' - x): between images of [0, 1] it stays there.

    >>> interpolate(torch.zeros(1), torch.ones(1), 0.25)
    tensor([0.2500])
    """
    return x + t * (other - x)


def local_slope(function: Callable[[Tensor], Tensor], images: Tensor, steps: int = 12) -> tuple[Tensor, Tensor]:
    """Largest singular value of the Jacobian J of ``function`` at each image: [B, ...] -> (sigma [B], change [B]).

    The power iteration v, J^T J v, (J^T J)^2 v, ... with all its directions kept: sigma is the largest stretch ||J v||
    among the unit vectors of their span (Lanczos with full orthogonalisation; Golub and Van Loan, "Matrix
    computations", chapter 10). It rises from below, so after any number of steps it is a lower bound of the local,
    hence of the global, Lipschitz constant; twelve steps come as far as some fifty of the plain power iteration.

    All images start from the same direction, and no image's result depends on the others if ``function`` treats each
    alone (batch norm in evaluation mode). Memory holds ``steps`` images for each image: call it in batches.

    Args:
        function: images [B, ...] -> features [B, F], twice differentiable by autograd.
        images: [B, ...].
        steps: products with J^T J.

    Returns:
        sigma, and the share by which the last step raised it: where this is small, little is left to gain.

    Raises:
        DataError: a slope is not finite.

    >>> matrix = torch.diag(torch.tensor([3.0, 1.0]))
    >>> sigma, change = local_slope(lambda x: x @ matrix, torch.zeros(2, 2))
    >>> [round(s, 4) for s in sigma.tolist()], bool((change < 1e-6).all())
    ([3.0, 3.0], True)
    """
    push, pull = _jacobian(function, images)
    noise = torch.randn(images.shape[1:], generator=generator("slope", images[0].numel())).to(images)
    v = _unit(noise.flatten().expand(len(images), -1))  # [B, n]
    directions, stretched = [], []
    for _ in range(steps):
        pushed = push(v)  # J v     [B, F]
        directions.append(v)
        stretched.append(pushed)
        v = _next(pull(pushed), torch.stack(directions, 1))
    if not bool(torch.isfinite(torch.stack(stretched)).all()):
        raise DataError("Some slopes are not finite.", "The encoder overflows, or cannot be differentiated there.")
    sigma, before = (_largest(stretched[:last]) for last in (steps, max(1, steps - 1)))
    return sigma, ((sigma - before) / sigma.clamp_min(torch.finfo(sigma.dtype).tiny)).clamp_min(0)


_Product = Callable[[Tensor], Tensor]


def _jacobian(function: Callable[[Tensor], Tensor], images: Tensor) -> tuple[_Product, _Product]:
    """v [B, n] -> J v [B, F] and u [B, F] -> J^T u [B, n], image by image, from one forward pass.

    J^T u is linear in u, so its derivative along v is J v: no forward-mode differentiation is needed.
    """
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        y = function(x)
        u = torch.zeros_like(y, requires_grad=True)
        (pulled,) = torch.autograd.grad(y, x, u, create_graph=True)  # J^T u     [B, ...]

    def push(v: Tensor) -> Tensor:
        return torch.autograd.grad(pulled, u, v.view_as(images), retain_graph=True)[0]

    def pull(w: Tensor) -> Tensor:
        return torch.autograd.grad(y, x, w, retain_graph=True)[0].flatten(1)

    return push, pull


def _next(w: Tensor, basis: Tensor) -> Tensor:
    """What of w [B, n] is orthogonal to the basis [B, k, n], as unit vectors; 0 where only rounding is left."""
    size = torch.linalg.vector_norm(w, dim=1, keepdim=True)
    for _ in range(2):  # once is not enough in finite precision
        w = w - torch.einsum("bk,bkn->bn", torch.einsum("bkn,bn->bk", basis, w), basis)
    left = torch.linalg.vector_norm(w, dim=1, keepdim=True)
    return torch.where(left > 1e-5 * size, _unit(w), 0.0)


def _largest(columns: list[Tensor]) -> Tensor:
    """The largest singular value of J restricted to orthonormal directions, from their images [B, F] -> [B]."""
    largest: Tensor = torch.linalg.matrix_norm(torch.stack(columns, 1), ord=2)
    return largest


def _unit(x: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / length.clamp_min(torch.finfo(x.dtype).tiny)

"""The von Mises-Fisher distribution with a constant concentration, stable for every dimension and concentration.

Density on the unit sphere S^{d-1}:  f(z; mu, kappa) = C_d(kappa) exp(kappa mu^T z),  ||mu|| = 1.

Everything that depends on (d, kappa) alone is a float64 number computed once. C_d itself leaves the range of floats
and kappa mu^T z costs digits, so densities are written with the scaled normaliser Ct = C exp(kappa):

    log f = log Ct_d(kappa) - kappa (1 - mu^T z),        1 - mu^T z = ||mu - z||^2 / 2.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor

from compressl.errors import UsageError
from compressl.objectives.common import check_not_negative, cosine, unit

_DEBYE_DIM = 512  # from here on four terms of the Debye expansion reach the precision of float64
_KNOTS = 4097  # of the sampling table
_WINDOW = 12.0  # half-width of the sampling table in standard deviations of the angle
_Reals = TypeVar("_Reals", float, Tensor)


class VonMisesFisher:
    """vMF(mu, kappa) on the sphere in ``dim`` dimensions, for a constant ``kappa`` and any mean direction mu.

    Mean directions and points are unit rows [..., dim]; rows are *not* normalised here. ``kappa = 0`` is the uniform
    distribution. Densities are with respect to surface area, in nats.

    Attributes:
        log_normalizer: log C_d(kappa).
        log_scaled_normalizer: log C_d(kappa) + kappa, the log-density at the mean direction.
        mean_resultant_length: A_d(kappa) = I_{d/2} / I_{d/2-1}, the mean cosine of a sample to mu.
        mean_cosine_gap: 1 - A_d(kappa), without the cancellation.
        entropy: -log C_d(kappa) - kappa A_d(kappa).

    Raises:
        UsageError: if ``dim`` is less than 2, or ``kappa`` negative or not finite.

    Source: Lee et al. 2021, arXiv:2109.12909 (use of the vMF); Mardia and Jupp, "Directional statistics" (identities).

    >>> e = VonMisesFisher(256, 1024.0)
    >>> round(e.log_normalizer, 6), round(e.mean_resultant_length, 6), round(e.entropy, 6)
    (-366.697533, 0.883157, -537.655365)
    >>> mean = torch.eye(256)[:4]
    >>> z = e.sample(mean, generator=torch.Generator().manual_seed(0))
    >>> e.log_prob(mean, z).shape
    torch.Size([4])
    """

    def __init__(self, dim: int, kappa: float) -> None:
        if dim < 2:
            raise UsageError(f"dim is {dim}.", "Give a sphere of at least 2 dimensions.")
        check_not_negative(kappa=kappa)
        self.dim, self.kappa = int(dim), float(kappa)
        ratio, gap = _mean_cosine(self.dim, self.kappa)
        self.mean_resultant_length = self.kappa * ratio
        self.mean_cosine_gap = gap
        self.log_scaled_normalizer = _log_scaled_normalizer(self.dim, self.kappa)
        self.log_normalizer = self.log_scaled_normalizer - self.kappa
        self.entropy = self.kappa * gap - self.log_scaled_normalizer
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __repr__(self) -> str:
        return f"VonMisesFisher(dim={self.dim}, kappa={self.kappa})"

    def log_prob(self, mean: Tensor, z: Tensor) -> Tensor:
        """log f(z; mean, kappa) in nats, [..., D] x [..., D] -> [...]."""
        return self.log_scaled_normalizer - self.kappa * (mean - z).square().sum(-1) / 2

    def kl(self, mean: Tensor, other: VonMisesFisher, other_mean: Tensor) -> Tensor:
        """KL( vMF(mean, kappa) || vMF(other_mean, other.kappa) ) in nats, [..., D] x [..., D] -> [...].

        >>> e, b, mu = VonMisesFisher(256, 1024.0), VonMisesFisher(256, 10.0), torch.eye(256)
        >>> e.kl(mu[0], b, mu[0]), e.kl(mu[0], b, mu[1])
        (tensor(184.6841), tensor(193.5157))
        """
        # log C_e - log C_b + A_e (kappa_e - kappa_b mu_e^T mu_b), with 1 - mu_e^T mu_b split off     [...]
        distance = (mean - other_mean).square().sum(-1) / 2
        return self.kl_floor(other) + other.kappa * self.mean_resultant_length * distance

    def kl_floor(self, other: VonMisesFisher) -> float:
        """The divergence at equal mean directions: what the two concentrations alone cost, in nats.

        Raises:
            UsageError: if the dimensions differ.
        """
        if other.dim != self.dim:
            raise UsageError(f"The dimensions are {self.dim} and {other.dim}.", "Compare distributions on one sphere.")
        scales = self.log_scaled_normalizer - other.log_scaled_normalizer
        return scales - (self.kappa - other.kappa) * self.mean_cosine_gap

    def sample(self, mean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One z ~ vMF(mean, kappa) for each row, [..., D] -> [..., D], at least float32, differentiable in ``mean``.

        z = w mu + sqrt(1 - w^2) v: the cosine w comes from a table of its quantiles and carries no gradient (its law
        does not depend on mu), v is uniform in the tangent space. No rejection, so a sample costs one fixed set of
        operations. The noise is drawn in float32 on the generator's device whatever the dtype of ``mean``, so that
        precision does not change the draw.
        """
        with torch.autocast(mean.device.type, enabled=False):
            mean = mean.to(torch.promote_types(mean.dtype, torch.float32))
            device = mean.device if generator is None else generator.device
            quantiles = torch.rand(mean.shape[:-1], generator=generator, device=device).to(mean.device)
            noise = torch.randn(mean.shape, generator=generator, device=device).to(mean)
            angle = self.angle(quantiles).to(mean.dtype)[..., None]
            tangent = unit(noise - cosine(noise, mean)[..., None] * mean)  # v = n(eps - (eps^T mu) mu)     [..., D]
            return angle.cos() * mean + angle.sin() * tangent  # z = w mu + sqrt(1 - w^2) v     [..., D]

    def angle(self, quantiles: Tensor) -> Tensor:
        """The angle between sample and mean direction at each quantile in [0, 1), in radians, same shape.

        A uniform in [0, 1) of 24 bits is read as the middle of its interval, so 0 is not the end of the tail.
        """
        device = quantiles.device
        if device not in self._tables:
            dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
            cdf, knots = _angle_table(self.dim, self.kappa)
            self._tables[device] = cdf.to(device, dtype), knots.to(device, dtype)
        cdf, knots = self._tables[device]
        u = quantiles.to(cdf.dtype) + 2.0**-25
        right = torch.searchsorted(cdf, u, right=True).clamp(1, _KNOTS - 1)
        left = right - 1
        fraction = (u - cdf[left]) / (cdf[right] - cdf[left]).clamp_min(1e-30)  # 1 can be flat at the end of the tail
        return knots[left] + fraction.clamp(0, 1) * (knots[right] - knots[left])


@lru_cache(maxsize=64)
def von_mises_fisher(dim: int, kappa: float) -> VonMisesFisher:
    """The distribution for ``dim`` and ``kappa``, built once: a loss learns its dimension from its inputs."""
    return VonMisesFisher(dim, kappa)


def mean_resultant_length(kappa: Tensor, dim: int) -> Tensor:
    """A_d(kappa) = I_{d/2} / I_{d/2-1} element by element, float64, as ``VonMisesFisher`` has it for one number.

    >>> mean_resultant_length(torch.tensor([1.0], dtype=torch.float64), 3)  # coth 1 - 1
    tensor([0.3130], dtype=torch.float64)
    """
    x = kappa.double()
    return x / ((x + dim) * (1 + _tail(dim, x)))


def _mean_cosine(dim: int, kappa: float) -> tuple[float, float]:
    """A_d(kappa) / kappa and 1 - A_d(kappa), both to the last digits for every kappa >= 0."""
    t = _tail(dim, kappa)
    whole = (kappa + dim) * (1 + t)
    return 1 / whole, (dim + (kappa + dim) * t) / whole


def _tail(dim: int, kappa: _Reals) -> _Reals:
    """The t of A_d(kappa) = kappa / ((kappa + d)(1 + t)), for one number or many.

    Perron's continued fraction for I_v / I_{v-1}, v = d/2 (Gautschi and Slavik 1978):
    t = a_1 / (1 + a_2 / (1 + ...)), evaluated backwards.
    """
    v, x, t = dim / 2, kappa, 0 * kappa
    for n in range(64, 1, -1):
        t = -(x / 2) * (v + n - 0.5) / ((v + x + (n - 1) / 2) * (v + x + n / 2)) / (1 + t)
    return -(x / 2) * (v + 0.5) / ((v + x / 2) * (v + x + 0.5)) / (1 + t)


def _log_scaled_normalizer(dim: int, kappa: float) -> float:
    """log C_d(kappa) + kappa.

    From I_{d/2} = A_d I_{d/2-1} follows log Ct_d = log Ct_{d+2} + log(2 pi A_d / kappa), every term of which is finite
    down to kappa = 0: low dimensions climb to one where the Debye expansion is exact.
    """
    steps = range(dim, max(dim, _DEBYE_DIM), 2)
    climb = (math.log(2 * math.pi * _mean_cosine(d, kappa)[0]) for d in steps)
    return math.fsum([*climb, _debye(dim + 2 * len(steps), kappa)])


def _debye(dim: int, kappa: float) -> float:
    """log C_d(kappa) + kappa for large d: DLMF 10.41.3, arranged so that log kappa cancels."""
    nu = dim / 2 - 1
    z = kappa / nu
    r = math.hypot(1, z)
    p = 1 / r
    u1 = (3 * p - 5 * p**3) / 24
    u2 = (81 * p**2 - 462 * p**4 + 385 * p**6) / 1152
    u3 = (30375 * p**3 - 369603 * p**5 + 765765 * p**7 - 425425 * p**9) / 414720
    u4 = p**4 * (4465125 - 94121676 * p**2 + 349922430 * p**4 - 446185740 * p**6 + 185910725 * p**8) / 39813120
    series = u1 / nu + u2 / nu**2 + u3 / nu**3 + u4 / nu**4
    leading = nu * (math.log(nu) + math.log1p(r) - 1 / (r + z)) - (nu + 1) * math.log(2 * math.pi)
    return leading + math.log(2 * math.pi * nu * r) / 2 - math.log1p(series)


def _angle_table(dim: int, kappa: float) -> tuple[Tensor, Tensor]:
    """The distribution function of the angle at equally spaced knots: (cdf, knots), each [_KNOTS].

    The angle theta has density sin^{d-2}(theta) exp(kappa cos(theta)), smooth and bounded for every d >= 2, where the
    density of the cosine has poles at its ends for d = 2.
    """
    n = dim - 2
    root = n + math.hypot(n, 2 * kappa)  # the mode solves (d-2) cos = kappa sin^2
    mode = math.atan2(math.sqrt(2 * n / root), 2 * kappa / root) if root else math.pi / 2
    curvature = (n / math.sin(mode) ** 2 if n else 0.0) + kappa * math.cos(mode)
    width = _WINDOW / math.sqrt(curvature) if curvature > 0 else math.pi
    low, high = max(0.0, mode - width), min(math.pi, mode + width)
    theta = torch.linspace(low, high, 2 * _KNOTS - 1, dtype=torch.float64)  # knots and midpoints between them
    exponent = 2 * kappa * (math.sin(mode / 2) ** 2 - (theta / 2).sin().square())  # kappa (cos theta - cos mode)
    if n:
        exponent = exponent + n * (theta.sin().clamp_min(0).log() - math.log(math.sin(mode)))
    f = exponent.exp()
    mass = f[:-2:2] + 4 * f[1::2] + f[2::2]  # Simpson's rule in each cell
    cdf = torch.cat([torch.zeros(1, dtype=torch.float64), mass.cumsum(0)])
    return cdf / cdf[-1], theta[::2].clone()

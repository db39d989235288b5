"""Random codes between an encoder and its head: bits that gradients pass through, and Gaussians; what they cost.

A latent draws a code from natural parameters phi that a network gives, one row per image. Divergences and entropies are
in nats; what counts bits of a stored code says bits.
"""

from __future__ import annotations

import math
from typing import ClassVar, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressl.errors import UsageError
from compressl.objectives.common import Terms, check_positive, check_rows, full_precision

EDGE = 1e-7  # uniforms stay this far from 0 and 1: float32 draws an exact 0 once in 2^24


class BernoulliLatent(nn.Module):
    """Independent bits with a gradient: z_j ~ Bernoulli(sigmoid(alpha_j)), relaxed to (0, 1) or straight through.

    ``forward(logits, noise=None, generator=None)`` takes alpha [N, D] and returns z [N, D], at least float32:

        soft: z = sigmoid((alpha + l) / tau),  l = log u - log(1 - u),  u uniform
        hard: 1[z >= 1/2], with the gradient of the soft z, dz/dalpha = z (1 - z) / tau

    ``noise`` are the uniforms u, of the logits' shape; without them they are drawn in float32 from ``generator``. They
    are clamped to [1e-7, 1 - 1e-7]. A hard z is an exact Bernoulli sample at any temperature, which decides on the
    gradient alone: at a low one it is nearly unbiased and varies much.

    Args:
        temperature: tau; may be changed between steps.
        hard: draw bits rather than numbers between 0 and 1.
        prior: p_0, the probability of a one under the prior of :meth:`divergence`.

    Raises:
        UsageError: for a temperature of 0 or less, or a prior outside (0, 1); in ``forward`` for logits that are not
            [N, D], or noise of another shape.

    Source: Ramapuram et al. 2021, arXiv:2110.00552, sections 3, 4 and A.1 (sample, temperature); prior and divergence
    are not in the paper.

    >>> latent = BernoulliLatent(temperature=0.5, hard=True)
    >>> logits = torch.tensor([[-2.0, 0.0, 2.0]], requires_grad=True)
    >>> z = latent(logits, noise=torch.full((1, 3), 0.5))
    >>> z.tolist(), torch.autograd.grad(z.sum(), logits)[0]
    ([[0.0, 1.0, 1.0]], tensor([[0.0353, 0.5000, 0.0353]]))
    """

    natural: ClassVar[tuple[str, ...]] = ("logits",)  # the names of phi

    def __init__(self, temperature: float = 1.0, hard: bool = False, prior: float = 0.5) -> None:
        super().__init__()
        check_positive(temperature=temperature)
        if not 0 < prior < 1:
            raise UsageError(f"prior is {prior}.", "Give a probability above 0 and below 1.")
        self.temperature, self.hard, self.prior = temperature, hard, prior

    def noise(
        self, *shape: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Uniforms u in float32, drawn on the generator's device, hence the same for every dtype and device of phi."""
        return torch.rand(shape, generator=generator, device=_place(generator, device)).to(device)

    def forward(self, logits: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        check_rows({"logits": logits})
        u = self.noise(*logits.shape, generator=generator, device=logits.device) if noise is None else noise
        check_rows({"logits": logits, "noise": u})
        with full_precision(logits, u) as (alpha, u):
            u = u.clamp(EDGE, 1 - EDGE)
            noisy = alpha + u.log() - torch.log1p(-u)  # alpha + l     [N, D]
            soft = (noisy / self.temperature).sigmoid()
            if not self.hard:
                return soft
            return (noisy >= 0).to(soft.dtype) + (soft - soft.detach())  # the bracket is 0, with a gradient

    def mode(self, logits: Tensor) -> Tensor:
        """The code without noise, 1[alpha >= 0] in the logits' dtype, [N, D] -> [N, D]. Ours: the paper draws it."""
        return self.code(logits).to(logits.dtype)

    def code(self, logits: Tensor) -> Tensor:
        """1[alpha >= 0], the likelier value of each bit, bool, [N, D] -> [N, D]."""
        return logits.detach() >= 0

    def bits(self, logits: Tensor) -> Tensor:
        """The code as it is stored, uint8, [N, D] -> [N, ceil(D / 8)]; see :func:`pack_bits`.

        >>> BernoulliLatent().bits(torch.tensor([[1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 2.0]]))
        tensor([[129]], dtype=torch.uint8)
        """
        return pack_bits(self.code(logits))

    def entropy(self, logits: Tensor) -> Tensor:
        """H(z|x) of the bits in nats for each image, [N, D] -> [N]."""
        with full_precision(logits) as (alpha,):
            size = alpha.abs()  # softplus(a) - a sigmoid(a) is even in a; of -|a| nothing cancels
            return (F.softplus(-size) + size * (-size).sigmoid()).sum(-1)

    def divergence(self, logits: Tensor) -> Tensor:
        """KL( q(z|x) || Bernoulli(p_0)^D ) in nats for each image, [N, D] -> [N].

        Its mean over images is at least I(x;z) of the *hard* z; a relaxed z tells more, since its bits can be read off
        it and not the other way round.
        """
        with full_precision(logits) as (alpha,):
            cross_entropy = -math.log(self.prior) * alpha.sigmoid() - math.log1p(-self.prior) * (-alpha).sigmoid()
            return cross_entropy.sum(-1) - self.entropy(alpha)

    @torch.no_grad()
    def terms(self, logits: Tensor) -> Terms:
        """``latent_divergence`` and ``latent_entropy`` in nats; of the code: ``active_bits`` and ``code_bits``."""
        code = self.code(logits)
        return {
            "latent_divergence": self.divergence(logits).mean(),
            "latent_entropy": self.entropy(logits).mean(),
            "active_bits": active_bits(code),
            "code_bits": code_bits(code),
        }

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, hard={self.hard}, prior={self.prior}"


class GaussianLatent(nn.Module):
    """z = mu + sigma eps, eps ~ N(0, I), with a sigma of its own for each dimension.

    ``forward(mean, scale, noise=None, generator=None)`` takes mu and sigma > 0, both [N, D], and returns z [N, D], at
    least float32. ``noise`` is eps; without it it is drawn in float32 from ``generator``. Gradients reach both.

    Raises:
        UsageError: in ``forward`` for mean, scale or noise that are not [N, D] of one shape.

    Source: Ramapuram et al. 2021, arXiv:2110.00552, sections 3 and 4.2 (sample; that "isotropic" means a diagonal
    covariance is inferred, unverified); prior and divergence are not in the paper.

    >>> z = GaussianLatent()(torch.zeros(1, 2), torch.ones(1, 2), noise=torch.tensor([[0.5, -1.0]]))
    >>> z
    tensor([[ 0.5000, -1.0000]])
    """

    natural: ClassVar[tuple[str, ...]] = ("mean", "scale")

    def noise(
        self, *shape: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Standard normals in float32, drawn on the generator's device."""
        return torch.randn(shape, generator=generator, device=_place(generator, device)).to(device)

    def forward(
        self, mean: Tensor, scale: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        check_rows({"mean": mean, "scale": scale})
        eps = self.noise(*mean.shape, generator=generator, device=mean.device) if noise is None else noise
        check_rows({"mean": mean, "noise": eps})
        with full_precision(mean, scale, eps) as (mu, sigma, eps):
            return mu + sigma * eps  # [N, D]

    def mode(self, mean: Tensor, scale: Tensor) -> Tensor:
        """The code without noise: the mean (the paper's choice at evaluation)."""
        return mean

    def entropy(self, mean: Tensor, scale: Tensor) -> Tensor:
        """H(z|x), a differential entropy in nats for each image, [N, D] -> [N]."""
        with full_precision(scale) as (sigma,):
            return (sigma.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def divergence(self, mean: Tensor, scale: Tensor) -> Tensor:
        """KL( q(z|x) || N(0, I) ) in nats for each image, [N, D] -> [N]; its mean is at least I(x;z).

        Where sigma comes from the opposing view, x stands for both views.
        """
        with full_precision(mean, scale) as (mu, sigma):
            return (0.5 * (sigma.square() + mu.square() - 1) - sigma.log()).sum(-1)

    @torch.no_grad()
    def terms(self, mean: Tensor, scale: Tensor) -> Terms:
        """``latent_divergence`` and ``latent_entropy`` in nats, and ``signal_to_noise``."""
        return {
            "latent_divergence": self.divergence(mean, scale).mean(),
            "latent_entropy": self.entropy(mean, scale).mean(),
            "signal_to_noise": signal_to_noise(mean, scale),
        }


Latent: TypeAlias = BernoulliLatent | GaussianLatent


def positive_scale(raw: Tensor) -> Tensor:
    """sigma = softplus(raw) + 1e-4, any shape, at least float32. Ours: the paper does not give the map.

    >>> positive_scale(torch.tensor([-100.0, 0.0, 100.0]))
    tensor([1.0000e-04, 6.9325e-01, 1.0000e+02])
    """
    with full_precision(raw) as (raw,):
        return F.softplus(raw) + 1e-4


def signal_to_noise(mean: Tensor, scale: Tensor) -> Tensor:
    """sum_j Var_x[mu_j] / sum_j E_x[sigma_j^2], [N, D] x [N, D] -> a scalar.

    Judge a learned noise by this and not by sigma: (c mu, c sigma) is the same code to a linear layer that follows.

    >>> signal_to_noise(torch.tensor([[1.0], [-1.0]]), torch.full((2, 1), 0.5))
    tensor(4.)
    """
    with full_precision(mean, scale) as (mu, sigma):
        return mu.var(0, correction=0).sum() / sigma.square().mean(0).sum()


def active_bits(code: Tensor) -> Tensor:
    """The mean number of ones per image, codes of zeros and ones [N, D] -> a scalar, in bits.

    >>> active_bits(torch.tensor([[True, True, False], [True, False, False]]))
    tensor(1.5000)
    """
    return code.float().sum(-1).mean()


def code_bits(code: Tensor) -> Tensor:
    """sum_j h_2(p_j), p_j the share of ones in bit j of the batch; [N, D] -> a scalar, in bits per image.

    What an entropy coder that knows each bit's frequency needs, and at least the entropy of the code. It is of this
    batch: few images understate it.

    Source: the entropy of a sum of independent bits bounds that of dependent ones; ours as a figure of merit.

    >>> code_bits(torch.tensor([[True, True, False], [True, False, False]]))
    tensor(1.)
    """
    p = code.float().mean(0)  # [D]
    nats: Tensor = torch.special.entr(p) + torch.special.entr(1 - p)
    return nats.sum() / math.log(2)


def pack_bits(code: Tensor) -> Tensor:
    """Eight bits to the byte, the first the highest, padded with zeros: zeros and ones [..., D] -> uint8 [..., D / 8].

    >>> pack_bits(torch.tensor([[True, False, False, False, False, False, False, True, True]]))
    tensor([[129, 128]], dtype=torch.uint8)
    """
    whole = F.pad(code.to(torch.uint8), (0, -code.shape[-1] % 8))
    eights = whole.reshape(*code.shape[:-1], whole.shape[-1] // 8, 8)
    weights = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=code.device)
    return (eights * weights).sum(-1, dtype=torch.uint8)


def hamming(a: Tensor, b: Tensor) -> Tensor:
    """In how many bits packed codes differ, uint8 [..., B] x [..., B] -> int64 [...], broadcast.

    The cosine of two codes written in -1 and 1 is 1 - 2 hamming / D.

    >>> hamming(torch.tensor([129], dtype=torch.uint8), torch.tensor([[129], [1], [126]], dtype=torch.uint8))
    tensor([0, 1, 8])
    """
    ones = torch.tensor([byte.bit_count() for byte in range(256)], dtype=torch.uint8, device=a.device)
    return ones[(a ^ b).int()].sum(-1, dtype=torch.int64)


def _place(generator: torch.Generator | None, device: torch.device | str) -> torch.device | str:
    return device if generator is None else generator.device

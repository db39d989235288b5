"""StochCon in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from compressl.settings.methods.base import MethodSettings


@dataclass(frozen=True)
class StochConSettings(MethodSettings):
    """StochCon (Ramapuram et al. 2021): SimCLR with a random, possibly binary, code behind one of its branches."""

    compares_images: ClassVar[bool] = True
    multi_crop: ClassVar[bool] = True
    name: Annotated[str, tyro.conf.arg(name="method", prefix_name=False)] = "stochcon"
    hidden: int = 2048
    """Width of the hidden layer of the head g (the paper does not say)."""
    dim: int = 128
    """Dimension of the head's output (the paper does not say)."""
    temperature: float = 0.1
    """Softmax temperature T (the paper does not say)."""
    latent: Literal["bernoulli", "gaussian"] = "bernoulli"
    """bernoulli: a code of bits. gaussian: a mean and a noise for each dimension."""
    latent_dim: int = 512
    """Dimensions of the code, between two linear layers (the paper: 32 to 512, and 2048 bits for features of 2048).
    0: no layers, the feature itself gives the logits of the bits. Not for ResNets: a feature behind a ReLU is never
    negative, so that no bit would be likelier 0 than 1."""
    hard: bool = True
    """Bernoulli: draw bits, with the relaxed gradient (straight through); otherwise numbers between 0 and 1 (the paper
    has both and does not say which its tables show)."""
    latent_temperature_start: float = 1.0
    """Bernoulli: temperature of the relaxation at the start. It affects the gradient alone where hard is on."""
    latent_temperature_end: float = 0.1
    """Bernoulli: where a cosine takes it."""
    variance: Literal["opposing", "own"] = "opposing"
    """Gaussian: the view that gives the noise its scale. own: an ablation of the paper's."""
    stochastic: Literal["top", "bottom"] = "bottom"
    """With small crops: top: the two views are stochastic; bottom: the small crops (the paper has both). Without any,
    the second view is stochastic either way."""
    symmetric: bool = False
    """Each of the two views is stochastic once, and the loss is the mean. Ours."""
    kl_weight: float = 0.0
    """Weight of the divergence of the code from a prior: how hard to compress. Ours: the paper has no such term."""
    prior: float = 0.5
    """Bernoulli: probability of a one under that prior; a Gaussian code's prior is N(0, 1)."""

    def check(self) -> list[str]:
        problems = (
            super().check()
            + self._at_least(2, "dim")
            + self._positive("temperature", "latent_temperature_start", "latent_temperature_end")
            + self._not_negative("latent_dim", "kl_weight")
        )
        if self.latent == "gaussian" and self.latent_dim == 0:
            problems.append("method.latent_dim is 0, but a gaussian code needs a layer that gives its mean and scale.")
        if not 0 < self.prior < 1:
            problems.append(f"method.prior lies above 0 and below 1; it is {self.prior}.")
        return problems

"""StochCon: SimCLR whose second view passes through a random code."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from compressl.errors import UsageError
from compressl.objectives.common import Terms, check_not_negative
from compressl.objectives.latents import Latent
from compressl.objectives.simclr import SimCLRLoss


class StochConLoss(nn.Module):
    """InfoNCE between deterministic projections v and stochastic ones v', and, if asked, a price on the code.

    ``forward(v, v_, phi=())`` takes v and v', raw [N, D] (normalised inside), N >= 2, and returns ``(loss, terms)``.
    The InfoNCE is exactly :class:`SimCLRLoss`, over all 2N anchors: the 2N - 1 candidates of each are deterministic and
    stochastic. No stop-gradient. Terms are those of SimCLR, among them ``cross_entropy`` and
    ``mutual_information_bound`` = log(2N - 1) - cross_entropy. (The bound of InfoNCE takes both branches to follow one
    law, which here they do not: read it as an indicator of the information that v and v' share.)

    With a ``latent``, ``phi`` are its natural parameters, each [N, latent dimensions], as v' was drawn from them, and
    its terms join: ``latent_divergence``, at least I(x;z), and ``latent_entropy``, in nats; for bits ``active_bits``
    and ``code_bits`` in bits (of the code without noise); for a Gaussian ``signal_to_noise``. The divergence is from a
    prior that is ours: the paper constrains the code by nothing but the loss, that is by ``kl_weight=0``. With
    ``kl_weight`` above 0 the loss is a variational information bottleneck.

    Args:
        temperature: T of the softmax. Not in the paper.
        latent: where the terms and the divergence come from; None for the bare loss.
        kl_weight: weight of the mean over images of the divergence. The KL is ours, off by default, not in the paper.

    Raises:
        UsageError: for a temperature of 0 or less, a negative ``kl_weight``, or one above 0 without ``latent``; in
            ``forward`` for N < 2, mismatched shapes, or ``phi`` that are not the latent's.

    Source: Ramapuram et al. 2021, arXiv:2110.00552, section 2 and figure 1, with the loss of Chen et al. 2020.

    >>> import torch
    >>> from compressl.objectives import BernoulliLatent
    >>> latent, logits = BernoulliLatent(hard=True), 2 * torch.eye(4, 8) - 1
    >>> z = latent(logits, generator=torch.Generator().manual_seed(0))
    >>> loss, terms = StochConLoss(temperature=0.5, latent=latent)(torch.eye(4, 8), z, [logits])
    >>> loss, terms["active_bits"], terms["code_bits"]
    (tensor(1.7569), tensor(1.), tensor(3.2451))
    """

    def __init__(self, temperature: float = 0.1, latent: Latent | None = None, kl_weight: float = 0.0) -> None:
        super().__init__()
        check_not_negative(kl_weight=kl_weight)
        if kl_weight > 0 and latent is None:
            raise UsageError(f"kl_weight is {kl_weight} without a latent.", "Give the latent whose divergence counts.")
        self.contrast = SimCLRLoss(temperature)
        self.latent, self.kl_weight = latent, kl_weight

    def forward(self, v: Tensor, v_: Tensor, phi: Sequence[Tensor] = ()) -> tuple[Tensor, Terms]:
        names = self.latent.natural if self.latent is not None else ()
        if len(phi) != len(names) or any(x.ndim != 2 or x.shape != (len(v), phi[0].shape[-1]) for x in phi):
            told = ", ".join(str(list(x.shape)) for x in phi) or "nothing"
            needed = " and ".join(names) or "nothing: there is no latent"
            raise UsageError(f"phi holds {told} for {len(v)} images.", f"Give {needed}, each [images, dimensions].")
        loss, terms = self.contrast(v, v_)  # L_InfoNCE(v, v')
        if self.latent is None:
            return loss, terms
        if self.kl_weight > 0:
            loss = loss + self.kl_weight * self.latent.divergence(*phi).mean()  # + beta E_x KL( q(z|x) || p(z) )
        return loss, terms | self.latent.terms(*phi)

    def extra_repr(self) -> str:
        return f"kl_weight={self.kl_weight}"

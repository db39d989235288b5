"""One paper a file; the table below is all there is of a registry.

>>> from compressl.settings.methods import CSimCLRSettings
>>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 8))
>>> method = create_method(CSimCLRSettings(hidden=16, dim=4), encoder, features=8)
>>> loss, terms = method([torch.randn(5, 3, 2, 2), torch.randn(5, 3, 2, 2)], torch.Generator().manual_seed(0))
>>> loss.shape, "residual_information" in terms
(torch.Size([]), True)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from compressl.methods.barlow_twins import BarlowTwins
from compressl.methods.base import Method
from compressl.methods.byol import BYOL
from compressl.methods.cbyol import CBYOL
from compressl.methods.cissl import CISSL
from compressl.methods.csimclr import CSimCLR
from compressl.methods.dino import DINO
from compressl.methods.dissl import DISSL
from compressl.methods.moco import MoCo
from compressl.methods.mveb import MVEB
from compressl.methods.simclr import SimCLR
from compressl.methods.simsiam import SimSiam
from compressl.methods.stochcon import StochCon
from compressl.methods.swav import SwAV
from compressl.methods.vicreg import VICReg
from compressl.settings.methods import MethodSettings

METHODS: dict[str, Callable[[Any, nn.Module, int], Method]] = {
    "simclr": SimCLR,
    "c-simclr": CSimCLR,
    "byol": BYOL,
    "c-byol": CBYOL,
    "simsiam": SimSiam,
    "barlow-twins": BarlowTwins,
    "vicreg": VICReg,
    "moco-v3": MoCo,
    "mveb": MVEB,
    "stochcon": StochCon,
    "swav": SwAV,
    "dino": DINO,
    "cissl": CISSL,
    "dissl": DISSL,
}


def create_method(settings: MethodSettings, encoder: nn.Module, features: int, seed: int = 0) -> Method:
    """A method around an encoder with ``features`` outputs; the heads' weights depend on ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)  # not the encoder's stream
        return METHODS[settings.name](settings, encoder, features)


__all__ = [
    "BYOL",
    "CBYOL",
    "CISSL",
    "DINO",
    "DISSL",
    "METHODS",
    "MVEB",
    "BarlowTwins",
    "CSimCLR",
    "Method",
    "MoCo",
    "SimCLR",
    "SimSiam",
    "StochCon",
    "SwAV",
    "VICReg",
    "create_method",
]

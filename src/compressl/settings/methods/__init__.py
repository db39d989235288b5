"""The numbers of each method, named after its paper's symbols; one file a method, as in ``compressl.methods``.

They live beside the methods' code rather than in it because a method's file needs torch and these must not
(``docs/architecture.md``, "settings").
"""

from __future__ import annotations

from typing import Any

from compressl.settings.methods.barlow_twins import BarlowTwinsSettings
from compressl.settings.methods.base import MethodSettings
from compressl.settings.methods.byol import BYOLSettings
from compressl.settings.methods.cbyol import CBYOLSettings
from compressl.settings.methods.cissl import CISSLSettings
from compressl.settings.methods.csimclr import CSimCLRSettings
from compressl.settings.methods.dino import DINOSettings
from compressl.settings.methods.dissl import DISSLSettings
from compressl.settings.methods.moco import MoCoSettings
from compressl.settings.methods.mveb import MVEBSettings
from compressl.settings.methods.simclr import SimCLRSettings
from compressl.settings.methods.simsiam import SimSiamSettings
from compressl.settings.methods.stochcon import StochConSettings
from compressl.settings.methods.swav import SwAVSettings
from compressl.settings.methods.vicreg import VICRegSettings

METHODS: dict[str, type[MethodSettings]] = {
    "simclr": SimCLRSettings,
    "c-simclr": CSimCLRSettings,
    "byol": BYOLSettings,
    "c-byol": CBYOLSettings,
    "simsiam": SimSiamSettings,
    "barlow-twins": BarlowTwinsSettings,
    "vicreg": VICRegSettings,
    "moco-v3": MoCoSettings,
    "mveb": MVEBSettings,
    "stochcon": StochConSettings,
    "swav": SwAVSettings,
    "dino": DINOSettings,
    "cissl": CISSLSettings,
    "dissl": DISSLSettings,
}


def describe(settings: type[Any]) -> str:
    """The first line of a settings class's docstring."""
    return (settings.__doc__ or "").strip().splitlines()[0]


__all__ = [
    "METHODS",
    "BYOLSettings",
    "BarlowTwinsSettings",
    "CBYOLSettings",
    "CISSLSettings",
    "CSimCLRSettings",
    "DINOSettings",
    "DISSLSettings",
    "MVEBSettings",
    "MethodSettings",
    "MoCoSettings",
    "SimCLRSettings",
    "SimSiamSettings",
    "StochConSettings",
    "SwAVSettings",
    "VICRegSettings",
    "describe",
]

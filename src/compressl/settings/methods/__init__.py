"""The numbers of each method, named after its paper's symbols; one file a method, as in ``compressl.methods``.

They live beside the methods' code rather than in it because a method's file needs torch and these must not
(``docs/architecture.md``, "settings").
"""

from __future__ import annotations

from typing import Any

from compressl.settings.methods.base import MethodSettings
from compressl.settings.methods.byol import BYOLSettings
from compressl.settings.methods.cbyol import CBYOLSettings
from compressl.settings.methods.csimclr import CSimCLRSettings
from compressl.settings.methods.simclr import SimCLRSettings

METHODS: dict[str, type[MethodSettings]] = {
    "simclr": SimCLRSettings,
    "c-simclr": CSimCLRSettings,
    "byol": BYOLSettings,
    "c-byol": CBYOLSettings,
}


def describe(settings: type[Any]) -> str:
    """The first line of a settings class's docstring."""
    return (settings.__doc__ or "").strip().splitlines()[0]


__all__ = [
    "METHODS",
    "BYOLSettings",
    "CBYOLSettings",
    "CSimCLRSettings",
    "MethodSettings",
    "SimCLRSettings",
    "describe",
]

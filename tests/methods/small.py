"""Every method small enough for a test; what a method's tests change beside its own numbers stands here."""

from __future__ import annotations

from typing import Any

from compressl.settings.methods import METHODS, MethodSettings

USUAL: dict[str, Any] = {"hidden": 16, "dim": 8}
SMALL: dict[str, dict[str, Any]] = {  # of methods that have other fields, or more of them
    "dino": {"hidden": 16, "bottleneck": 8, "outputs": 24},
    "dissl": {"hidden": 16, "bottleneck": 8, "clusters": 24},
    "mveb": USUAL | {"group_size": 8},
    "simsiam": USUAL | {"bottleneck": 4},
    "stochcon": USUAL | {"latent_dim": 8},
    "swav": USUAL | {"prototypes": 12},
}


def small_settings(name: str, **numbers: Any) -> MethodSettings:
    """The settings of a method, with heads that cost nothing."""
    return METHODS[name](**SMALL.get(name, USUAL) | numbers)

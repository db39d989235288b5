"""Fixtures that several rooms share."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# The same cases on every run, so that a failure belongs to a change; HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(autouse=True, scope="session")
def _threads() -> None:
    """Tests run side by side; more threads than processors make all of them slow."""
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, torch.get_num_threads()))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache of decoded images."""
    monkeypatch.setenv("COMPRESSL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def torchvision_models() -> object:
    """torchvision's models, also beside a CPU build of torch."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    from compressl.models.encoders import define_torchvision_operators

    define_torchvision_operators()
    import torchvision.models

    return torchvision.models

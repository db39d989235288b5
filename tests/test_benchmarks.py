"""The budgets of the benchmark fit every method."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compressl.methods import METHODS
from compressl.settings.methods import METHODS as METHOD_SETTINGS

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def settings() -> Callable[..., Any]:
    return runpy.run_path(str(FOLDER / "methods.py"))["settings"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("data", ["digits", "cifar10", "defaults"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_budget_that_is_valid(settings: Callable[..., Any], data: str, method: str) -> None:
    budget = settings(data, method, seed=2)
    assert budget.check() == []
    images = "digits" if data == "digits" else "cifar10"
    assert (budget.method.name, budget.data.path, budget.seed) == (method, images, 2)
    assert budget.encoder == settings(data, "simclr", 0).encoder  # one encoder and one number of images for all
    assert budget.data.limit == (None if data == "digits" else 10_000)
    assert budget.batch_size == (256 if data == "defaults" else 64)
    if data == "defaults":
        assert budget.method == METHOD_SETTINGS[method]()
    if data != "digits":
        assert budget.epochs == settings(data, "simclr", 0).epochs


def test_every_page_and_picture_has_its_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])  # as `python benchmarks/<name>.py` has it
    for name in ("knn", "methods_page", "step_time", "target"):
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="imported")

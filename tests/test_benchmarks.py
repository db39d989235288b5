"""The budgets of the benchmark fit every method."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
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
    for name in ("knn", "methods_page", "target"):
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="imported")


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("views", [], "devices"),
        ("step", ["--device", "cpu"], "rows"),
        ("scaling", [], "stores"),
        ("learning", ["plain"], "runs"),
        ("gpu", ["--device", "cpu"], "parts"),
    ],
)
def test_each_benchmark_of_speed_runs_and_has_a_section(
    name: str, options: list[str], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / f"{name}.json"
    command = [sys.executable, str(FOLDER / f"{name}.py"), *options, "--tiny", "--out", str(out)]
    if name == "learning":
        command += ["--into", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert record[part]
    assert record["environment"]["threads"] == 1
    if name == "gpu":
        assert {key: value["error"] for key, value in record["parts"].items() if "error" in value} == {}
        assert record["parts"]["resume"]["resumed_is_the_same"]
    if name == "learning":
        marks = record["runs"][0]["curve"]
        assert [mark["step"] for mark in marks] == list(range(1, 10))  # of 72 images, nine batches
        assert all(a["seconds"] < b["seconds"] for a, b in pairwise(marks))
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    page = runpy.run_path(str(FOLDER / "speed_page.py"), run_name="imported")["render"]
    found = page((FOLDER.parent / "docs" / "speed.md").read_text(), tmp_path)
    assert record["command"] in found
    assert found.count("Not measured yet.") == 5


def test_the_objectives_have_their_times_and_memory(tmp_path: Path) -> None:
    out = tmp_path / "objectives.json"
    command = [sys.executable, str(FOLDER / "objectives.py"), "--tiny", "--out", str(out), "--methods", "simclr;mveb"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert list(rows) == ["simclr", "mveb"]
    # at least the images of the two views in the first convolution's output, in two bytes
    assert all(row["ratio"][0] > 0 and row["kept_mb"] * 1e6 > 2 * 128 * 4 * 8 * 8 * 2 for row in rows.values())


def test_a_page_refuses_figures_of_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from compressl.settings.pretrain import PretrainSettings
    from compressl.settings.toml import to_toml

    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    page = runpy.run_path(str(FOLDER / "methods_page.py"), run_name="imported")
    now = to_toml(PretrainSettings())
    recorded = page["comparable"](now)
    assert page["same"](recorded, now)
    del recorded["deterministic"]  # an option that did not exist then
    assert page["same"](recorded, now)
    assert not page["same"](recorded | {"optimizer.lr": 0.5}, now)
    assert not page["same"](recorded | {"an option": "that is gone"}, now)


def test_the_benchmark_of_a_gpu_says_that_there_is_none() -> None:
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(FOLDER / "gpu.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=hidden)
    assert done.returncode == 2
    assert done.stdout == "There is no CUDA device here: torch.cuda.is_available() is False.\n"

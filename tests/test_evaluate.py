"""`compressl evaluate` as a whole: every measure of a run, the same twice, and whatever else can stand for a run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressl.evaluation.differences import differences

from .command import run

FEW = ["--images", "50", "--views", "4", "--resamples", "100", "--draws", "2", "--k", "5", "--shots", "1", "3"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 images of 16 px whose class is the channel that is brighter in a large square."""
    random = np.random.default_rng(0)
    labels = np.arange(300) % 3
    images = random.integers(0, 130, (300, 16, 16, 3))
    images[np.arange(300), 4:, 4:, labels] += 100
    folder = tmp_path_factory.mktemp("data")
    np.save(folder / "images.npy", images.astype(np.uint8))
    np.save(folder / "images.labels.npy", labels)
    return folder / "images.npy"


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "stochcon"
    words = ["--encoder.width", "0.125", "--method.hidden", "16", "--method.dim", "8", "--method.latent-dim", "16"]
    words += ["--epochs", "2", "--batch-size", "64", "--precision", "fp32", "--save-every", "1", "--no-tensorboard"]
    assert run("pretrain", "--method", "stochcon", "--data", str(data), "--out", str(out), *words) == 0
    return out


def figures(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in ("results", "measures", "skipped", "protocol", "data")}


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict | list):
        return [n for v in (value.values() if isinstance(value, dict) else value) for n in numbers(v)]
    return [value] if isinstance(value, int | float) else []


def test_every_measure_of_a_run_and_the_same_again(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "evaluate",
        str(trained),
        "--data",
        str(data),
        *FEW,
        "--transfer",
        f"again={data}",
        "--shift",
        f"far={data}",
    ]
    assert run(*argv) == 0
    shown = capsys.readouterr().out
    assert "kept information" in shown
    first = json.loads((trained / "evaluation.json").read_text())
    assert set(first["measures"]) == {"robustness", "information", "geometry", "lipschitz", "uncertainty", "transfer"}
    assert first["skipped"] == {}
    assert all(math.isfinite(n) for n in numbers(first))
    information = first["measures"]["information"]
    assert information["trained_channel"]["code"]["size_bits"] == 16
    assert [point["step"] for point in information["plane"]] == [4, 8]
    assert set(first["seconds"]) >= set(first["measures"]) | {"accuracy"}

    assert run(*argv, "--out", str(tmp_path / "again.json")) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert figures(again) == figures(first), "a second call gives the same figures to the last digit"
    for difference in differences(first, again):
        assert difference.difference.value == 0
        assert difference.verdict == "no difference"
    assert len(differences(first, again)) >= 10


def test_one_measure_alone_and_the_report_of_it(trained: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "geometry.json"
    assert run("evaluate", str(trained), "--data", str(data), *FEW, "--measures", "geometry", "--out", str(out)) == 0
    record = json.loads(out.read_text())
    assert set(record["measures"]) == {"geometry"}
    assert record["results"] == {}


def test_weights_and_names_stand_for_runs(
    trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--data", str(data), *FEW, "--measures", "accuracy"]
    assert run("evaluate", str(trained / "encoder.safetensors"), *words, "--out", str(tmp_path / "file.json")) == 0
    record = json.loads((tmp_path / "file.json").read_text())
    assert record["results"]["encoder"]["dimension"] == 64
    assert run("evaluate", "random/resnet18", *words) == 0
    record = json.loads((tmp_path / "runs" / "random-resnet18" / "evaluation.json").read_text())
    assert record["encoder"]["size"] == 16
    assert record["results"]["encoder"]["dimension"] == 512


def test_what_cannot_be_had_is_said_at_the_end(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(data), *FEW, "--measures", "accuracy", "--transfer", "none=nowhere", "--shots", "1", "5000"]
    assert run("evaluate", str(trained), *words, "--out", str(tmp_path / "e.json")) == 0
    record = json.loads((tmp_path / "e.json").read_text())
    assert "nowhere" in str(record["skipped"] | record["measures"].get("transfer", {}).get("skipped", {}))
    assert any("5000 per class" in name for name in record["skipped"])
    assert "Not measured" in capsys.readouterr().out

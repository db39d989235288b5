"""What the doctor looks at, and what it says of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from compressl import doctor
from compressl.data import default_cache, open_source, pack, store

from .command import run


@pytest.mark.parametrize("problem", [None, "ImportError: it is broken"])
def test_doctor_finds_this_machine_sound_or_says_why(
    problem: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_imports", lambda code: problem)  # interpreters of their own take their time
    status = run("doctor")
    shown = capsys.readouterr().out
    assert len([line for line in shown.splitlines() if line[:1] in "✓·✗"]) == len(doctor.CHECKS)
    assert status == (1 if "✗" in shown.rsplit("\n", 2)[0] else 0)
    for library in ("torchvision", "timm"):
        if importlib.util.find_spec(library) is not None:
            assert (f"✗ {library} does not import: ImportError: it is broken" in shown) == (problem is not None)
            assert (f"✓ {library} imports" in shown) == (problem is None)


def test_an_import_is_tried_in_an_interpreter_of_its_own() -> None:
    assert doctor._imports("import json") is None
    assert doctor._imports("import json, nothing_of_this_name") == (
        "ModuleNotFoundError: No module named 'nothing_of_this_name'"
    )


def test_the_doctor_lists_and_clears_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images.npy"
    np.save(images, np.zeros((50, 8, 8, 3), np.uint8))
    monkeypatch.setattr(doctor, "CHECKS", ())
    monkeypatch.setattr(store, "IN_MEMORY_BYTES", 0)
    pack(open_source(str(images)), view_size=8, cache=default_cache())
    assert run("doctor", "--cache") == 0
    assert f"50 images of {images}" in capsys.readouterr().out
    images.unlink()
    assert run("doctor", "--cache") == 0
    shown = capsys.readouterr().out
    assert "its source is gone" in shown
    assert "1 packed collection in the cache, each what was written" in shown
    assert run("doctor", "--cache", "--remove-stale") == 0
    shown = capsys.readouterr().out
    assert "removed images_npy-" in shown
    assert "freed in the cache" in shown
    assert list(default_cache().iterdir()) == []


def test_a_doctor_survives_its_own_checks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def a_check() -> doctor.Finding:
        raise RuntimeError("the thermometer broke")

    monkeypatch.setattr(doctor, "CHECKS", (a_check,))
    assert run("doctor") == 1
    assert "a check: RuntimeError: the thermometer broke" in capsys.readouterr().out

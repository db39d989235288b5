"""A checkpoint is whole and verified, or it is not used."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from compressl.errors import CheckpointError, ResourceError
from compressl.training import checkpoint


def _state(value: float) -> dict[str, Any]:
    return {"method": {"w": torch.full((4, 4), value)}, "optimizer": {"state": {0: {"m": torch.ones(2)}}}, "note": "x"}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path, 10, _state(1.0))
    checkpoint.save(tmp_path, 20, _state(2.0))
    return tmp_path


def test_the_newest_comes_back(two: Path) -> None:
    loaded = checkpoint.load_newest(two)
    assert loaded is not None
    assert loaded.state["step"] == 20
    assert torch.equal(loaded.state["method"]["w"], torch.full((4, 4), 2.0))
    assert not loaded.skipped


def test_none_at_all_is_a_fresh_start(tmp_path: Path) -> None:
    assert checkpoint.load_newest(tmp_path / "checkpoints") is None


def _damage(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "flip":
        content[len(content) // 2] ^= 1
    elif how == "missing":
        file.unlink()
        return
    else:
        content = content[: {"empty": 0, "one": 1, "half": len(content) // 2, "short": len(content) - 1}[how]]
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("file", ["state.pt", "manifest.json"])
@pytest.mark.parametrize("how", ["flip", "missing", "empty", "one", "half", "short"])
def test_a_damaged_one_is_passed_over_and_named(two: Path, file: str, how: str) -> None:
    _damage(two / "step-000000020" / file, how)
    loaded = checkpoint.load_newest(two)
    assert loaded is not None
    if loaded.state["step"] == 20:  # the flipped bit left the manifest's meaning as it was
        assert file == "manifest.json"
        assert how == "flip"
    else:
        assert loaded.state["step"] == 10
        assert list(loaded.skipped) == ["step-000000020"]


def test_a_damaged_step_can_be_saved_again(two: Path) -> None:
    _damage(two / "step-000000020" / "state.pt", "flip")
    assert checkpoint.load_newest(two).state["step"] == 10  # type: ignore[union-attr]
    checkpoint.save(two, 15, _state(1.5), keep=1)
    checkpoint.save(two, 20, _state(2.5), keep=1)
    loaded = checkpoint.load_newest(two)
    assert loaded is not None
    assert loaded.state["step"] == 20
    assert torch.equal(loaded.state["method"]["w"], torch.full((4, 4), 2.5))
    assert (two / "damaged-step-000000020").is_dir(), "what was damaged is kept for who wants to look"


def test_all_damaged_is_an_error_and_overwrites_nothing(two: Path) -> None:
    for folder in two.iterdir():
        _damage(folder / "state.pt", "flip")
    before = {file: file.read_bytes() for file in two.rglob("*") if file.is_file()}
    with pytest.raises(CheckpointError, match=r"step-000000020.*step-000000010"):
        checkpoint.load_newest(two)
    assert {file: file.read_bytes() for file in two.rglob("*") if file.is_file()} == before


def test_a_pickle_runs_nothing(two: Path) -> None:
    sentinel = two / "sentinel"

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (sentinel,))

    file = two / "step-000000020" / "state.pt"
    torch.save({"schema": 1, "evil": Evil()}, file)
    content = file.read_bytes()
    manifest = {"schema": 1, "files": {"state.pt": {"size": len(content), "sha256": checkpoint._sha256(content)}}}
    (two / "step-000000020" / "manifest.json").write_text(json.dumps(manifest))
    loaded = checkpoint.load_newest(two)
    assert loaded is not None
    assert loaded.state["step"] == 10
    assert not sentinel.exists()


def test_another_schema_is_named(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SCHEMA", 2)
    with pytest.raises(CheckpointError, match="schema 1 is not 2"):
        checkpoint.load_newest(two)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in range(5):
        checkpoint.save(tmp_path, step, _state(step), keep=2)
    assert [p.name for p in checkpoint.checkpoints(tmp_path)] == ["step-000000004", "step-000000003"]


@pytest.mark.parametrize("at", ["write", "rename", "fsync"])
def test_a_full_disk_leaves_the_old_one_and_no_stump(two: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if at == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "open" if at == "write" else "rename", full)
    with pytest.raises(ResourceError, match="disk is full"):
        checkpoint.save(two, 30, _state(3.0))
    monkeypatch.undo()
    assert sorted(p.name for p in two.iterdir()) == ["step-000000010", "step-000000020"]
    assert checkpoint.load_newest(two).state["step"] == 20  # type: ignore[union-attr]


def test_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = checkpoint.save(tmp_path, 1, _state(1.0))
    finally:
        os.umask(before)
    assert {(file.stat().st_mode & 0o777) for file in path.iterdir()} == {0o640}


SAVER = """
import sys, torch
from pathlib import Path
from compressl.training import checkpoint
step = int(sys.argv[2])
while True:
    step += 1
    checkpoint.save(Path(sys.argv[1]), step, {"w": torch.full((500_000,), float(step))})
    print(step, flush=True)
"""


def test_killed_while_saving_there_is_always_a_good_one(tmp_path: Path) -> None:
    """SIGKILL at many moments of a save, again and again on the same folder."""
    import random

    moments, last = random.Random(0), 0
    process = None
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(tmp_path), str(last)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(moments.random() * 0.15)
        process.kill()
        process.communicate()
        loaded = checkpoint.load_newest(tmp_path)
        assert loaded is not None
        assert not loaded.skipped
        assert loaded.state["step"] > last
        assert bool((loaded.state["w"] == loaded.state["step"]).all())
        last = loaded.state["step"]

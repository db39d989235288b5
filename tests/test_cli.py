"""The command as a person uses it: the whole road on a folder, and every kind of bad input with its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .command import run

SMALL = [
    "--encoder.width",
    "0.125",
    "--method.hidden",
    "16",
    "--method.dim",
    "8",
    "--epochs",
    "1",
    "--precision",
    "fp32",
]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A nested folder as people have them: several formats, modes and sizes, no classes."""
    folder, random = tmp_path / "my photos", np.random.default_rng(0)
    for i, (mode, suffix, place) in enumerate(
        [("RGB", "jpg", "."), ("L", "png", "a"), ("RGBA", "png", "a/b"), ("P", "gif", "ü"), ("CMYK", "jpg", "a")] * 5
    ):
        target = folder / place / f"{i:02d}.{suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        size = (20 + i % 5 * 9, 30)
        pixels = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        pixels.convert(mode).save(target)
    return folder


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Two classes, told apart by colour."""
    folder, random = tmp_path / "classes", np.random.default_rng(1)
    for name, channel in (("red <b>", 0), ("blue", 2)):
        (folder / name).mkdir(parents=True)
        for i in range(25):
            pixels = random.integers(0, 100, (24, 24, 3), dtype=np.uint8)
            pixels[:, :, channel] += 100
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def test_the_whole_road(photos: Path, classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "runs" / "photos")
    assert run("pretrain", "--data", str(photos), "--out", out, "--batch-size", "8", *SMALL) == 0
    few = ("--resamples", "100", "--k", "5", "--views", "2", "--draws", "2", "--images", "50", "--shots", "1")
    assert run("evaluate", out, "--data", str(classes), *few) == 0
    assert run("report", out) == 0
    shown = capsys.readouterr().out
    assert "raw pixels" in shown
    assert "random encoder" in shown
    record = json.loads(Path(out, "evaluation.json").read_text())
    assert record["data"]["test_images"] == 10
    assert record["results"]["raw pixels"]["knn"]["value"] == 1.0
    page = Path(out, "report.html").read_text()
    assert "red &lt;b&gt;" in page
    assert "red <b>" not in page


def test_the_same_command_again_says_that_it_is_done(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("pretrain", "--data", str(photos), "--out", str(tmp_path / "r"), "--batch-size", "8", *SMALL)
    assert run(*argv) == 0
    assert run(*argv) == 4
    assert "finished run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arrange", "code", "part"),
    [
        ("nothing", 3, "neither a file or folder"),
        ("empty", 3, "no images"),
        ("text", 3, "unreadable"),
        ("one", 3, "at least two"),
        ("few", 3, "fewer"),
        ("broken", 3, "unreadable"),
        ("parquet", 3, "image"),
    ],
)
def test_data_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arrange: str, code: int, part: str
) -> None:
    folder = tmp_path / "data"
    good = Image.fromarray(np.full((20, 20, 3), 7, dtype=np.uint8))
    if arrange != "nothing":
        folder.mkdir()
    if arrange == "text":
        for i in range(12):
            (folder / f"{i}.jpg").write_text("<html>not found</html>")
    for i in range({"one": 1, "few": 5, "broken": 20}.get(arrange, 0)):
        good.save(folder / f"{i}.jpg")
    if arrange == "broken":
        whole = (folder / "0.jpg").read_bytes()
        (folder / "0.jpg").write_bytes(whole[: len(whole) // 2])
    if arrange == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": ["a", "b"]}), folder / "train.parquet")
    status = run("pretrain", "--data", str(folder), "--out", str(tmp_path / "r"), "--batch-size", "8", *SMALL)
    error = capsys.readouterr().err
    assert status == code, error
    assert part in error
    assert "Traceback" not in error
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("argv", "code", "part"),
    [
        (["pretrian"], 2, "Did you mean 'pretrain'?"),
        (["pretrain", "--data", "x", "--method", "c-simlcr"], 2, "Did you mean 'c-simclr'?"),
        (["pretrain", "--data", "x", "--encoder", "resnet999"], 2, "encoder 'resnet999' is unknown"),
        (["pretrain", "--data", "digits", "--device", "cuda:99"], 2, "cuda:99 is not there"),
        (["evaluate", "nowhere", "--data", "digits"], 4, "holds no finished encoder"),
        (["report", "nowhere"], 4, "holds no run"),
        (["list", "--all"], 2, "takes no options"),
        (["doctor", "now"], 2, "'now' stands alone"),
        (["doctor", "--remove-stale"], 2, "give --cache too"),
    ],
)
def test_what_cannot_be_asked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    code: int,
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*argv) == code
    assert part in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_unlabelled_folder_cannot_be_evaluated(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "r")
    assert run("pretrain", "--data", str(photos), "--out", out, "--batch-size", "8", *SMALL) == 0
    assert run("evaluate", out, "--data", str(photos)) == 3
    assert "no labels" in capsys.readouterr().err


def test_a_run_inside_the_data_folder_is_no_data(classes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(classes / "my run")
    argv = ("pretrain", "--data", str(classes), "--batch-size", "8", *SMALL, "--epochs", "2", "--out")
    assert run(*argv, out) == 0
    assert run(*argv, str(classes / "again")) == 0
    words = ("--data", str(classes), "--resamples", "100", "--k", "5", "--measures", "accuracy")
    assert run("evaluate", out, *words) == 0
    record = json.loads(Path(out, "evaluation.json").read_text())
    assert record["data"]["classes"] == ["blue", "red <b>"]
    assert record["data"]["seen_in_pretraining"] is True


def test_a_reader_that_goes_away_does_not_end_the_work(photos: Path, tmp_path: Path) -> None:
    words = ["pretrain", "--data", str(photos), "--out", str(tmp_path / "r"), "--batch-size", "8", *SMALL]
    process = subprocess.Popen(
        [sys.executable, "-m", "compressl", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read().decode()
    assert process.wait(timeout=100) == 0, errors
    assert (tmp_path / "r" / "encoder.safetensors").exists()


def test_a_damaged_status_is_no_stranger(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("pretrain", "--data", str(photos), "--out", str(tmp_path / "r"), "--batch-size", "8", *SMALL)
    assert run(*argv) == 0
    (tmp_path / "r" / "run.json").write_text("")
    assert run(*argv) == 0, "it is continued from its checkpoint"
    (tmp_path / "r" / "run.json").write_text("")
    assert run(*argv, "--overwrite") == 0


def test_outputs_that_cannot_be_are_found_first(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", "nowhere", "--data", "digits", "--out", str(tmp_path)) == 2
    assert run("report", "nowhere", "--out", str(tmp_path / "no" / "x.html")) == 2
    assert "Give --out a file" in capsys.readouterr().err


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    shown = capsys.readouterr().out
    for word in (
        "c-simclr",
        "c-byol",
        "resnet152",
        "timm/<name>",
        "symbols",
        "cifar10/simclr",
        "imagenet/c-byol-300",
        "[timm]",
    ):
        assert word in shown


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", "nowhere", "--debug") == 4
    assert "Traceback" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("compressl ")


@pytest.mark.skipif(
    sys.platform == "win32" or (hasattr(os, "geteuid") and os.geteuid() == 0), reason="root may write anywhere"
)
def test_a_folder_that_cannot_be_written(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert run("pretrain", "--data", str(photos), "--out", str(closed / "r"), *SMALL) == 6
    assert "cannot be written" in capsys.readouterr().err

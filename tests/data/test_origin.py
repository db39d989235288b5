"""Where images came from, and what has become of it."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compressl.data import ArraySource, open_source
from compressl.data.origin import Origin, origin_of, recall, remember


def opened(data: Path, split: str | None = None) -> Origin:
    source = open_source(str(data), split)
    return origin_of(source, source.fingerprint())


@pytest.fixture
def pets(tmp_path: Path, make_folder: Callable[..., Path]) -> Path:
    return make_folder(tmp_path / "pets", {"cats": 3, "dogs": 3})


def add(data: Path) -> None:
    shutil.copy(data / "cats/000.png", data / "cats/009.png")


def move(data: Path) -> None:
    data.rename(data.with_name("elsewhere"))


def replace_by_a_file(data: Path) -> None:
    shutil.rmtree(data)
    data.write_text("no folder")


def empty(data: Path) -> None:
    for file in data.rglob("*.png"):
        file.unlink()


@pytest.mark.parametrize(
    ("fault", "fate"),
    [(add, "changed"), (move, "gone"), (shutil.rmtree, "gone"), (replace_by_a_file, "changed"), (empty, "changed")],
)
@pytest.mark.parametrize("split", [None, "train"])
def test_faults_of_a_folder(pets: Path, fault: Callable[[Path], None], fate: str, split: str | None) -> None:
    origin = opened(pets, split)
    assert origin.place == str(pets.resolve())
    assert origin.fate() == "there"
    fault(pets)
    assert origin.fate() == fate


@pytest.mark.parametrize(
    ("kind", "several"), [("array", False), ("parquet", False), ("parquet", True), ("tar", False), ("tar", True)]
)
def test_files_that_change_and_go(kind: str, several: bool, tmp_path: Path, photo, encode, make_parquet) -> None:
    names = ["train-0", "more/train-1"] if several else ["train-0"]
    (tmp_path / "data" / "more").mkdir(parents=True)

    def make(count: int) -> list[Path]:
        files = []
        for name in names:
            file = tmp_path / "data" / f"{name}.{'npy' if kind == 'array' else kind}"
            if kind == "array":
                np.save(file, np.full((4, 8, 8, 3), count, np.uint8))  # of the same size
            elif kind == "parquet":
                make_parquet(file, [0, 1] * count)
            else:
                with tarfile.open(file, "w") as tar:
                    for i in range(30 * count):
                        picture = tmp_path / "picture.png"
                        picture.write_bytes(encode(photo(seed=i)))
                        tar.add(picture, f"{i}.png")
            files.append(file)
        return files

    *_, file = make(1)
    origin = opened(tmp_path / "data" if several else file)
    assert origin.kind == kind
    assert origin.place == str(tmp_path / "data" if several else file)
    assert origin.fate() == "there"
    make(2)
    assert origin.fate() == "changed"
    file.write_bytes(b"<html>")
    assert origin.fate() == "changed"
    file.unlink()
    assert origin.fate() == "gone"


def test_what_may_not_be_looked_at_is_neither_gone_nor_changed(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    origin = opened(pets)
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refused)
        assert origin.fate() == "unknown"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", refused)
        assert origin.fate() == "unknown"


def test_what_has_no_place(tmp_path: Path) -> None:
    origin = origin_of(ArraySource(np.zeros((4, 8, 8, 3), np.uint8), name="toy"), "0123")
    assert origin.fate() == "unknown"
    assert origin.place == "toy, which has no place of its own"


def test_a_note_is_read_back_and_a_torn_one_is_none(pets: Path, tmp_path: Path) -> None:
    source = open_source(str(pets))
    remember(tmp_path, source, source.fingerprint())
    assert recall(tmp_path) == opened(pets)
    for words in ("", "[]", "7", '{"name": "pets", "files": 7}', '{"files": [], "more": 1}'):
        (tmp_path / "source.json").write_text(words)
        assert recall(tmp_path) is None
    remember(tmp_path / "nowhere", source, source.fingerprint())  # cannot be written, and stops nothing

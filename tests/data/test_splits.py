from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compressl.data import open_source, open_splits
from compressl.errors import DataError


def names(source) -> list[str]:
    return [source.describe(i) for i in range(len(source))]


@pytest.mark.parametrize("test_name", ["test", "val", "valid", "validation", "Test"])
def test_folders_named_train_and_test(test_name: str, tmp_path: Path, make_folder) -> None:
    root = make_folder(
        tmp_path / "pets", {"train/cats": 3, "train/dogs": 2, f"{test_name}/cats": 1, f"{test_name}/dogs": 1}
    )
    train, test, how = open_splits(str(root))
    assert (len(train), len(test)) == (5, 2)
    assert train.class_names == test.class_names == ["cats", "dogs"]
    assert how == f"{root}: the folders train/ and {test_name}/"
    for_pretraining = open_source(str(root))
    assert len(for_pretraining) == 5
    assert "pets-train alone is used" in for_pretraining.note
    assert train.note == ""


def test_a_class_called_train_is_no_split(tmp_path: Path, make_folder) -> None:
    source = open_source(str(make_folder(tmp_path / "vehicles", {"train": 2, "plane": 2})))
    assert source.class_names == ["plane", "train"]
    assert source.note == ""


@pytest.mark.parametrize("test_name", ["test", "val", "validation"])
def test_parquet_files_named_train_and_test(test_name: str, tmp_path: Path, make_parquet) -> None:
    for name, count in {"train-00000-of-00002": 3, "train-00001-of-00002": 2, f"{test_name}-00000": 4}.items():
        make_parquet(tmp_path / f"set/data/{name}.parquet", [0, 1, 0, 1][:count], ["a", "b"])
    train, test, how = open_splits(str(tmp_path / "set"))
    assert (len(train), len(test)) == (5, 4)
    assert how.endswith(f"the files train*.parquet and {test_name}*.parquet")
    assert len(open_source(str(tmp_path / "set"))) == 5


def test_a_file_called_values_is_no_validation_set(tmp_path: Path, make_parquet) -> None:
    for name in ("train", "values"):
        make_parquet(tmp_path / f"set/{name}.parquet", [0, 1])
    source = open_source(str(tmp_path / "set"))
    assert len(source) == 4
    assert source.note == ""


def test_without_a_split_one_is_made_class_by_class(tmp_path: Path, make_folder) -> None:
    root = make_folder(tmp_path / "pets", {"cats": 20, "dogs": 10, "newts": 2})
    train, test, how = open_splits(str(root))
    assert sorted(names(train) + names(test)) == names(open_source(str(root)))
    assert not set(names(train)) & set(names(test))
    assert np.bincount(test.labels, minlength=3).tolist() == [4, 2, 0]
    assert how == (
        f"{root}: a split of 80% to 20% by seed 0, class by class, as it has none of its own; "
        "without test images: newts"
    )
    assert names(open_source(str(root), "test")) == names(test)
    other = open_source(str(root), "test", seed=1)
    assert names(other) != names(test)
    assert other.fingerprint() != test.fingerprint() != train.fingerprint()


def test_without_labels_the_split_is_of_all(tmp_path: Path, make_folder) -> None:
    train, test, how = open_splits(str(make_folder(tmp_path / "photos", {".": 20})))
    assert (len(train), len(test)) == (16, 4)
    assert "class by class" not in how


def test_a_test_set_of_its_own_is_numbered_by_class_name(tmp_path: Path, make_folder) -> None:
    train = make_folder(tmp_path / "a", {"ants": 2, "cats": 2, "dogs": 2})
    test = make_folder(tmp_path / "b", {"cats": 1, "dogs": 3})
    splits = open_splits(str(train), str(test))
    assert splits.test.labels.tolist() == [1, 2, 2, 2]
    assert splits.test.class_names == ["ants", "cats", "dogs"]
    assert splits.split_description == "train on a, test on b; without test images: ants"
    with pytest.raises(DataError, match="a has classes that b has not: ants"):
        open_splits(str(test), str(train))
    with pytest.raises(DataError, match="are the same images"):
        open_splits(str(test), str(test))


def test_the_test_part_of_the_test_set_is_used(tmp_path: Path, make_folder) -> None:
    train = make_folder(tmp_path / "a", {"train/x": 3, "train/y": 3, "test/x": 1, "test/y": 1})
    test = make_folder(tmp_path / "b", {"train/x": 5, "train/y": 5, "test/x": 2, "test/y": 2})
    splits = open_splits(str(train), str(test))
    assert (len(splits.train), len(splits.test)) == (6, 4)


def test_numbers_without_names_must_be_known(tmp_path: Path, make_parquet) -> None:
    train = make_parquet(tmp_path / "a.parquet", [0, 1, 2])
    named = make_parquet(tmp_path / "b.parquet", [2, 0], ["x", "y", "z"])
    splits = open_splits(str(train), str(named))
    assert splits.train.class_names == ["x", "y", "z"]
    assert splits.test.labels.tolist() == [2, 0]
    beyond = make_parquet(tmp_path / "c.parquet", [0, 3])
    for known in (train, named):
        with pytest.raises(DataError, match=r"classes that . has not: 3"):
            open_splits(str(known), str(beyond))


def test_too_few_images_for_a_test_part(tmp_path: Path, make_folder) -> None:
    with pytest.raises(DataError, match="too few images for a test part"):
        open_splits(str(make_folder(tmp_path / "pets", {"cats": 2, "dogs": 2})))

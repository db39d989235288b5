"""Against real images, where they are at hand (see ``COMPRESSL_DATA``)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressl.data import Subset, open_source, open_splits, pack
from compressl.data.sources import data_roots


@pytest.fixture
def real(monkeypatch):
    """``real("cifar10")``, or a skip that says what is missing."""
    root = Path(__file__).parents[2]

    def find(name: str) -> str:
        monkeypatch.chdir(root)
        if not any((folder / name).is_dir() for folder in data_roots()):
            pytest.skip(f"{name} is not here: put it in ../shared/data, or name its folder in COMPRESSL_DATA.")
        return name

    return find


def test_cifar10(real) -> None:
    train, test, how = open_splits(real("cifar10"))
    assert (len(train), len(test)) == (50_000, 10_000)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert train.labels[:5].tolist() == [6, 9, 9, 4, 1]  # the official order
    assert train.class_names[:3] == ["airplane", "automobile", "bird"]
    assert how == "cifar10: the files train*.parquet and test*.parquet"
    every = Subset(train, np.arange(0, 50_000, 10), "tenth")
    packed = pack(every, view_size=32, cache=None)
    assert packed.images.shape == (5000, 32, 32, 3)
    assert packed.unreadable == []
    mean = packed.images.reshape(-1, 3).mean(0) / 255
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=0.006)  # 5 standard errors of a tenth
    np.testing.assert_array_equal(packed.labels, train.labels[::10])


def test_imagenette96(real) -> None:
    train, test, _ = open_splits(real("imagenette96"))
    assert (len(train), len(test)) == (9469, 3925)
    assert train.class_names == test.class_names
    assert train.class_names[0] == "tench"
    assert "imagenette96-train alone" in open_source("imagenette96").note
    some = Subset(test, np.arange(0, 3925, 40), "some")
    packed = pack(some, view_size=96, cache=None)
    assert packed.unreadable == []
    for i in range(0, len(some), 10):
        with Image.open(io.BytesIO(some.read(i))) as image:
            assert packed.geometry[i].tolist() == [image.height, image.width]
            if image.size == packed.images.shape[2:0:-1]:
                np.testing.assert_array_equal(packed.images[i], np.asarray(image.convert("RGB")))

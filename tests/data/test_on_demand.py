"""Images that are decoded when they are asked for are those of a store, to the bit."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small import small_settings

from compressl.data import ArraySource, FolderSource, PackedImages, batches, open_source, pack
from compressl.data import store as store_module
from compressl.errors import CompresslWarning, DataError, UsageError
from compressl.settings.encoder import EncoderSettings
from compressl.settings.pretrain import DataSettings, PretrainSettings
from compressl.settings.views import ViewsSettings
from compressl.training.loop import pretrain


@pytest.fixture
def photos(tmp_path: Path, photo, encode) -> Path:
    """40 images of many sizes; large JPEGs among them, which are decoded at a part of their size."""
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(40):
        kind, scale = ("JPEG", 12) if i % 4 == 0 else ("PNG", 1)
        (root / f"{i:02}.{kind.lower()}").write_bytes(encode(photo(scale * (70 + i), scale * 66, seed=i), kind))
    return root


def both(root: Path, max_unreadable: float = 0.1) -> tuple[PackedImages, PackedImages]:
    """The images decoded once, and decoded on demand."""
    source = FolderSource(root)
    options = {"view_size": 32, "cache": None, "max_unreadable": max_unreadable}
    return pack(source, **options), pack(source, **options, keep="no")


def assert_same_batches(packed: PackedImages, lazy: PackedImages) -> None:
    options = {"batch_size": 8, "seed": 0, "start_step": 1, "total_steps": 8, "device": "cpu"}
    with batches(packed, **options) as expected, batches(lazy, **options) as found:
        for one, other in zip(expected, found, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.geometry, other.geometry)
            assert torch.equal(one.indices, other.indices)


def test_batches_are_the_same_to_the_bit(photos: Path) -> None:
    packed, lazy = both(photos)
    assert lazy.on_demand
    assert not packed.on_demand
    assert packed.images.shape == lazy.images.shape == (40, 48, 48, 3)
    assert packed.images.nbytes == lazy.images.nbytes
    assert packed.fingerprint == lazy.fingerprint
    assert_same_batches(packed, lazy)


def test_images_of_one_small_size_are_kept_as_they_are() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 20, 30, 3), dtype=np.uint8)
    lazy = pack(ArraySource(images), view_size=16, cache=None, keep="no")
    pixels, geometry = lazy.gather(np.array([8, 0]))
    np.testing.assert_array_equal(pixels, images[[8, 0]])
    assert geometry.tolist() == [[20, 30]] * 2


def test_unreadable_images_are_replaced_as_in_a_store(photos: Path) -> None:
    for name in ("05.png", "06.png", "39.png"):
        (photos / name).write_bytes(b"<html>")
    packed, lazy = both(photos)

    def compare(packed: PackedImages, lazy: PackedImages) -> None:
        assert_same_batches(packed, lazy)
        chosen = np.array([30, 6, 5, 2, 39, 4, 8, 9, 11])
        assert_same_batches(packed.subset(chosen), lazy.subset(chosen))

    with pytest.warns(CompresslWarning, match=r"is unreadable \(it is not an image") as caught:
        compare(packed, lazy)
    assert len(caught) == 3  # each once
    assert sorted(lazy.images.unreadable) == [5, 6, 39]


def test_more_unreadable_images_than_tolerated_stop_the_work(photos: Path) -> None:
    for name in ("05.png", "06.png", "07.png"):
        (photos / name).write_bytes(b"")
    _, lazy = both(photos)
    strict = pack(FolderSource(photos), view_size=32, cache=None, keep="no", max_unreadable=0.05)
    with pytest.warns(CompresslWarning):
        lazy.gather(np.arange(40))
    with (
        pytest.warns(CompresslWarning),
        pytest.raises(DataError, match=r"3 of the 40 images of photos are unreadable, more than the 5% tolerated"),
    ):
        strict.gather(np.arange(40))
    with pytest.warns(CompresslWarning), pytest.raises(DataError, match="None of these 2 images"):
        both(photos)[1].subset(np.array([5, 6])).gather(np.array([0]))


def test_few_batches_are_decoded_ahead(monkeypatch) -> None:
    reads: list[int] = []
    original = ArraySource.read
    monkeypatch.setattr(ArraySource, "read", lambda self, i: reads.append(i) or original(self, i))
    lazy = pack(ArraySource(np.zeros((400, 4, 4, 3), np.uint8)), view_size=4, cache=None, keep="no")
    reads.clear()
    with batches(lazy, batch_size=4, seed=0, start_step=0, total_steps=100, device="cpu") as steps:
        next(steps)
        time.sleep(0.3)  # long enough to decode all of them
        assert 8 <= len(reads) <= 4 * (1 + 4 + 1)  # taken, waiting, and one that finds no room


def test_images_that_are_decoded_on_demand_are_not_resident() -> None:
    lazy = pack(ArraySource(np.zeros((4, 4, 4, 3), np.uint8)), view_size=4, cache=None, keep="no")
    with pytest.raises(UsageError, match=r"--data\.pack yes"):
        batches(lazy, batch_size=2, seed=0, start_step=0, total_steps=1, device="cpu", resident=True)
    assert "does not go with" in " ".join(DataSettings(path="digits", pack="no", device="yes").check())


def test_a_full_disk_is_why_images_are_decoded_on_demand(photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(store_module, "IN_MEMORY_BYTES", 0)
    usage = shutil.disk_usage(tmp_path)
    options = {"view_size": 32, "cache": tmp_path / "c", "keep": "auto"}
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**5))
        lazy = pack(FolderSource(photos), **options)
    assert lazy.on_demand
    assert "would take 0.0 GB, and 0.0 GB are free" in lazy.note
    assert "--data.cache" in lazy.note
    assert not (tmp_path / "c").exists()
    packed = pack(FolderSource(photos), **options)
    assert not packed.on_demand
    assert packed.note == ""
    assert_same_batches(packed, lazy)


def test_large_parquet_files_are_said_to_be_slow(tmp_path: Path, make_parquet, monkeypatch) -> None:
    source = open_source(str(make_parquet(tmp_path / "pets.parquet", [0, 1, 0, 1])), "train")
    assert pack(source, view_size=16, cache=None, keep="no").note == ""
    monkeypatch.setattr(store_module, "CACHE_BYTES", 100)
    assert "in random order that is very slow" in pack(source, view_size=16, cache=None, keep="no").note
    assert pack(source, view_size=16, cache=None).note == ""


def test_a_training_learns_the_same(photos: Path, tmp_path: Path) -> None:
    found = []
    for keep in ("yes", "no"):
        run = pretrain(
            PretrainSettings(
                data=DataSettings(path=str(photos), pack=keep, device="no", cache=tmp_path),
                method=small_settings("simclr"),
                encoder=EncoderSettings(width=0.125),
                views=ViewsSettings(size=16),
                out=tmp_path / keep,
                epochs=1,
                batch_size=16,
                precision="fp32",
                tensorboard=False,
            )
        )
        found.append((run.path / "encoder.safetensors").read_bytes())
    assert found[0] == found[1]

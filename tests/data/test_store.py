from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressl.data import ArraySource, FolderSource, default_cache, pack, suggest_view_size
from compressl.data import store as store_module
from compressl.errors import DataError, ResourceError


@pytest.fixture
def on_disk(monkeypatch):
    """Stores of every size go to disk."""
    monkeypatch.setattr(store_module, "IN_MEMORY_BYTES", 0)


@pytest.fixture
def counted(monkeypatch) -> list[int]:
    """A list that grows by one for each image read."""
    reads: list[int] = []
    original = FolderSource.read
    monkeypatch.setattr(FolderSource, "read", lambda self, i: reads.append(i) or original(self, i))
    return reads


def spoil(root: Path, count: int, every: int) -> list[str]:
    """Cut every ``every``-th of the folder's images short; their names."""
    files = sorted(root.rglob("*.png"))[::every][:count]
    for file in files:
        file.write_bytes(file.read_bytes()[:40])
    return [file.relative_to(root).as_posix() for file in files]


class TestSize:
    def test_one_small_size_is_kept_exactly(self, tmp_path: Path, photo, encode) -> None:
        for i in range(3):
            (tmp_path / f"{i}.png").write_bytes(encode(photo(50, 30, seed=i)))
        packed = pack(FolderSource(tmp_path), view_size=32, cache=None)
        assert packed.images.shape == (3, 30, 50, 3)
        assert packed.geometry.tolist() == [[30, 50]] * 3
        np.testing.assert_array_equal(packed.images[1], np.asarray(photo(50, 30, seed=1)))

    @pytest.mark.parametrize(
        ("sizes", "view_size", "side"),
        [
            ([(300, 200), (120, 400)], 96, 112),
            ([(300, 200), (120, 400)], 224, 256),
            ([(90, 60), (60, 100)], 224, 100),  # never larger than the largest image
            ([(90, 60), (60, 100)], 32, 48),
            ([(300, 200), (300, 200)], 32, 48),  # of one size, but large
        ],
    )
    def test_other_sizes_are_squashed(self, tmp_path: Path, photo, encode, sizes, view_size, side) -> None:
        for i, (width, height) in enumerate(sizes):
            (tmp_path / f"{i}.png").write_bytes(encode(photo(width, height, seed=i)))
        packed = pack(FolderSource(tmp_path), view_size=view_size, cache=None)
        assert packed.images.shape == (2, side, side, 3)
        assert packed.geometry.tolist() == [[height, width] for width, height in sizes]
        for i, (width, height) in enumerate(sizes):
            reference = photo(width, height, seed=i).resize((side, side), Image.Resampling.BICUBIC)
            assert np.abs(packed.images[i] - np.asarray(reference).astype(int)).max() <= 3

    def test_one_size_below_s_is_kept(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (2, 96, 90, 3), dtype=np.uint8)
        packed = pack(ArraySource(images), view_size=96, cache=None)
        np.testing.assert_array_equal(packed.images, images)

    @pytest.mark.parametrize(("side", "view"), [(8, 16), (32, 32), (64, 64), (96, 96), (160, 96), (192, 224)])
    def test_the_view_size_follows_the_shorter_side(self, side: int, view: int) -> None:
        assert suggest_view_size(ArraySource(np.zeros((3, side + 40, side), np.uint8))) == view


class TestOnDisk:
    def test_round_trip_and_reuse(self, tmp_path: Path, make_folder, on_disk, counted) -> None:
        source = FolderSource(make_folder(tmp_path / "pets", {"cats": 40, "dogs": 30}))
        memory = pack(source, view_size=16, cache=None)
        done = []
        first = pack(source, view_size=16, cache=tmp_path / "c", progress=lambda *step: done.append(step))
        assert done == [(32, 70), (64, 70), (70, 70)]
        assert isinstance(first.images, np.memmap)
        assert not first.images.flags.writeable
        reads = len(counted)
        again = pack(source, view_size=16, cache=tmp_path / "c")
        assert len(counted) == reads  # nothing was decoded
        assert first.note == again.note == ""
        for packed in (first, again):
            np.testing.assert_array_equal(packed.images, memory.images)
            np.testing.assert_array_equal(packed.geometry, memory.geometry)
            np.testing.assert_array_equal(packed.labels, source.labels)
        assert [path.name for path in (tmp_path / "c").iterdir()] == [f"pets-{source.fingerprint()[:16]}-32"]

    def test_another_size_or_content_is_another_store(self, tmp_path: Path, make_folder, on_disk) -> None:
        root = make_folder(tmp_path / "pets", {"cats": 2, "dogs": 2})
        pack(FolderSource(root), view_size=16, cache=tmp_path / "c")
        pack(FolderSource(root), view_size=8, cache=tmp_path / "c")
        shutil.copy(root / "cats/001.png", root / "cats/007.png")
        assert len(pack(FolderSource(root), view_size=16, cache=tmp_path / "c")) == 5
        assert len(list((tmp_path / "c").iterdir())) == 3

    def test_small_stores_touch_no_disk(self, tmp_path: Path, make_folder) -> None:
        pack(FolderSource(make_folder(tmp_path / "pets", {"cats": 2})), view_size=16, cache=tmp_path / "c")
        assert not (tmp_path / "c").exists()

    @pytest.mark.parametrize(
        ("damage", "again"),
        [
            (lambda folder: (folder / "images.npy").write_bytes((folder / "images.npy").read_bytes()[:-1]), 10),
            (lambda folder: flip(folder / "images.npy", 20), 10),
            (lambda folder: flip(folder / "images.npy", 5000), 10),
            (lambda folder: flip(folder / "geometry.npy", -1), 10),
            (lambda folder: (folder / "geometry.npy").unlink(), 10),
            (lambda folder: edit(folder, version=99), 0),  # the journal says what the bytes are
            (lambda folder: edit(folder, unreadable=7), 0),
            (lambda folder: (folder / "store.json").write_text("{"), 0),
            (lambda folder: (folder / "store.json").write_text("[]"), 0),
            (lambda folder: (folder / "store.json").unlink(), 0),
            (lambda folder: (edit(folder, version=1), (folder / "journal.jsonl").unlink()), 10),
        ],
    )
    def test_damage_is_found_and_mended(self, damage, again, tmp_path: Path, make_folder, on_disk) -> None:
        source = FolderSource(make_folder(tmp_path / "pets", {"cats": 5, "dogs": 5}))
        good = np.array(pack(source, view_size=16, cache=tmp_path / "c").images)
        damage(next((tmp_path / "c").iterdir()))
        mended = pack(source, view_size=16, cache=tmp_path / "c")
        assert "were damaged" in mended.note
        assert mended.note.endswith(f"{again} of 10 images were decoded again.")
        np.testing.assert_array_equal(mended.images, good)
        assert pack(source, view_size=16, cache=tmp_path / "c").note == ""
        assert len(list((tmp_path / "c").iterdir())) == 1

    def test_no_room_is_known_before_starting(self, tmp_path: Path, make_folder, on_disk, monkeypatch, counted) -> None:
        source = FolderSource(make_folder(tmp_path / "pets", {"cats": 3}))
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
        blocks = []
        with pytest.raises(ResourceError, match=r"need 0\.0 GB, more than is free in .*COMPRESSL_CACHE"):
            pack(source, view_size=16, cache=tmp_path / "c", progress=lambda *step: blocks.append(step))
        assert blocks == []
        assert list((tmp_path / "c").iterdir()) == []

    def test_the_default_folder(self, monkeypatch, tmp_path: Path) -> None:
        monkeypatch.setenv("COMPRESSL_CACHE", str(tmp_path))
        assert default_cache() == tmp_path
        monkeypatch.delenv("COMPRESSL_CACHE")
        assert default_cache() == Path.home() / ".cache" / "compressl"


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def edit(folder: Path, **changes: object) -> None:
    about = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps(about | changes))


class TestUnreadable:
    @pytest.mark.parametrize("cached", [False, True])
    def test_half_a_percent_passes_and_is_named(self, cached, tmp_path: Path, make_folder, request) -> None:
        if cached:
            request.getfixturevalue("on_disk")
        root = make_folder(tmp_path / "pets", {"cats": 100, "dogs": 100})
        (root / "cats/099.png").write_bytes(b"<html>")
        for _ in range(2):  # the second time from the store
            packed = pack(FolderSource(root), view_size=16, cache=tmp_path / "c" if cached else None)
            assert packed.unreadable == [("cats/099.png", "it is not an image of a known format")]
            assert packed.readable.sum() == 199
            assert not packed.readable[99]
            assert packed.rows.tolist() == [*range(99), 100, *range(100, 200)]
            images, geometry = packed.gather(np.array([99, 100]))
            np.testing.assert_array_equal(images[0], images[1])
            assert geometry[0].tolist() == geometry[1].tolist()
            assert packed.labels[99] == 1  # the label of the image that is shown
            assert packed.name(99) == "cats/099.png"

    def test_five_percent_stop_with_the_list(self, tmp_path: Path, make_folder) -> None:
        root = make_folder(tmp_path / "pets", {"cats": 100, "dogs": 100})
        bad = spoil(root, 10, every=20)
        with pytest.raises(DataError) as caught:
            pack(FolderSource(root), view_size=16, cache=None)
        message = str(caught.value)
        assert "10 of the 200 images of pets are unreadable, more than the 1% tolerated" in message
        assert all(f"{name}: " in message for name in bad[:5])
        assert "and 5 more" in message
        packed = pack(FolderSource(root), view_size=16, cache=None, max_unreadable=0.05)
        assert [name for name, _ in packed.unreadable] == bad

    def test_the_last_image_wraps_around(self, tmp_path: Path, make_folder) -> None:
        root = make_folder(tmp_path / "pets", {"cats": 4})
        (root / "cats/003.png").write_bytes(b"")
        packed = pack(FolderSource(root), view_size=16, cache=None, max_unreadable=0.5)
        assert packed.rows.tolist() == [0, 1, 2, 0]

    def test_images_that_vanish_are_named(self, tmp_path: Path, make_folder) -> None:
        root = make_folder(tmp_path / "pets", {"cats": 4})
        source = FolderSource(root)
        (root / "cats/002.png").unlink()
        packed = pack(source, view_size=16, cache=None, max_unreadable=0.5)
        assert packed.unreadable == [("cats/002.png", "No such file or directory")]

    def test_nothing_readable_is_always_an_error(self, tmp_path: Path, make_folder) -> None:
        root = make_folder(tmp_path / "pets", {"cats": 3})
        spoil(root, 3, every=1)
        with pytest.raises(DataError, match="3 of the 3 images"):
            pack(FolderSource(root), view_size=16, cache=None, max_unreadable=1.0)

    def test_one_image_is_too_few(self, tmp_path: Path, make_folder) -> None:
        with pytest.raises(DataError, match="has 1 image; at least two are needed"):
            pack(FolderSource(make_folder(tmp_path / "pets", {"cats": 1})), view_size=16, cache=None)

    def test_an_error_of_our_own_is_not_taken_for_a_bad_image(self, monkeypatch) -> None:
        def broken(self, index: int) -> bytes:
            raise RuntimeError("a bug")

        monkeypatch.setattr(ArraySource, "read", broken)
        with pytest.raises(RuntimeError, match="a bug"):
            pack(ArraySource(np.zeros((4, 8, 8), np.uint8)), view_size=8, cache=None)


class TestSubset:
    def test_entries_keep_their_image_label_and_name(self, numbered) -> None:
        part = numbered(10).subset(np.array([7, 2, 5]))
        images, geometry = part.gather(np.array([0, 2]))
        assert images[:, 0, 0, 0].tolist() == [7, 5]
        assert geometry.shape == (2, 2)
        assert part.labels.tolist() == [7, 2, 5]
        assert part.name(1) == "numbered entry 2"
        assert part.subset(np.array([1])).name(0) == "numbered entry 2"

    def test_a_replacement_comes_from_within(self, tmp_path: Path, make_folder) -> None:
        root = make_folder(tmp_path / "pets", {"cats": 6})
        (root / "cats/003.png").write_bytes(b"")
        packed = pack(FolderSource(root), view_size=16, cache=None, max_unreadable=0.5)
        assert packed.rows[3] == 4
        part = packed.subset(np.array([1, 3]))  # entry 4 is not of this subset and must not leak into it
        assert part.rows.tolist() == [1, 1]
        assert part.unreadable == packed.unreadable
        assert part.readable.tolist() == [True, False]
        assert packed.subset(np.array([0, 1])).unreadable == []
        with pytest.raises(DataError, match="readable"):
            packed.subset(np.array([3]))

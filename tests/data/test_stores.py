"""What lies in the cache: what each store was made from, and which of them may go."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compressl import doctor
from compressl.data import ArraySource, PackedImages, open_source, pack
from compressl.data import store as store_module
from compressl.data.journal import Layout
from compressl.data.origin import recall
from compressl.data.stores import InUse, Stored, remove, survey

MakeFolder = Callable[..., Path]


@pytest.fixture(autouse=True)
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores of every size go to disk."""
    monkeypatch.setattr(store_module, "IN_MEMORY_BYTES", 0)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache that the doctor looks into."""
    monkeypatch.setenv("COMPRESSL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def packed(data: Path, cache: Path) -> PackedImages:
    return pack(open_source(str(data)), view_size=16, cache=cache)


def one(cache: Path) -> Stored:
    (found,) = survey(cache)
    return found


@pytest.fixture
def pets(tmp_path: Path, make_folder: MakeFolder) -> Path:
    return make_folder(tmp_path / "pets", {"cats": 3, "dogs": 3})


@pytest.fixture
def gone(pets: Path, cache: Path) -> Path:
    """The store of images that are there no more."""
    packed(pets, cache)
    shutil.rmtree(pets)
    return one(cache).folder


def test_an_empty_or_absent_cache(cache: Path) -> None:
    assert survey(cache) == []
    assert doctor.stores() == []


def test_a_store_says_what_it_was_made_from(pets: Path, cache: Path) -> None:
    packed(pets, cache)
    store = one(cache)
    assert (store.images, store.finished, store.stale) == (6, True, "")
    assert store.origin is not None
    assert store.origin.place == str(pets.resolve())
    assert store.nbytes >= 6 * 26 * 20 * 3
    (finding,) = doctor.stores()
    assert finding.verdict == "good"
    assert f"6 images of {pets.resolve()}" in finding.what


def test_a_source_that_moved_is_found_where_it_was_used_last(pets: Path, cache: Path) -> None:
    packed(pets, cache)
    (pets.parent / "elsewhere").mkdir()
    elsewhere = pets.rename(pets.parent / "elsewhere" / "pets")
    assert one(cache).stale == "its source is gone"
    packed(elsewhere, cache)
    assert one(cache).stale == ""


def test_images_that_changed(pets: Path, cache: Path) -> None:
    packed(pets, cache)
    (pets / "cats/000.png").unlink()
    assert one(cache).stale == "its source has changed since"
    packed(pets, cache)
    assert sorted(store.stale for store in survey(cache)) == ["", "its source has changed since"]


def test_what_has_no_place_stays(cache: Path) -> None:
    pack(ArraySource(np.zeros((4, 8, 8, 3), np.uint8), name="toy"), view_size=8, cache=cache)
    assert one(cache).stale == ""
    (finding,) = doctor.stores()
    assert "toy, which has no place of its own" in finding.what


def test_stores_without_a_note_of_their_source_stay(gone: Path, cache: Path) -> None:
    for words in ("", "[]", '{"name": "pets", "files": 7}', '{"files": [], "more": 1}'):
        (gone / "source.json").write_text(words)
        assert recall(gone) is None
        assert one(cache).stale == ""
    (gone / "source.json").unlink()
    assert one(cache).stale == ""
    assert "a source that is not on record" in doctor.stores()[0].what


@pytest.mark.parametrize(("version", "stale"), [(1, "its format is that of an older version"), (99, "")])
def test_older_formats_may_go_and_newer_ones_not(pets: Path, cache: Path, version: int, stale: str) -> None:
    packed(pets, cache)
    folder = one(cache).folder
    about = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps(about | {"version": version}))
    (folder / "journal.jsonl").unlink()
    assert one(cache).stale == stale


def test_exactly_those_are_removed(gone: Path, cache: Path, tmp_path: Path, make_folder: MakeFolder) -> None:
    packed(make_folder(tmp_path / "kept", {"a": 2, "b": 2}), cache)
    size = next(store for store in survey(cache) if store.folder == gone).nbytes
    found = doctor.removed_stores()
    assert not gone.exists()
    assert one(cache).name.startswith("kept-")
    kept, removed, freed = (finding.what for finding in found)
    assert kept.startswith("kept-")
    assert removed.startswith(f"removed {gone.name}: 6 images")
    assert removed.endswith("its source is gone")
    assert freed == f"{size / 1e6:.1f} MB freed in the cache"
    assert [path.name for path in cache.iterdir()] == [one(cache).name]
    assert len(packed(tmp_path / "kept", cache)) == 4


def test_an_unfinished_packing_of_images_that_are_gone(pets: Path, cache: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(open_source(str(pets)), view_size=16, cache=cache, progress=stop)
    assert not one(cache).finished
    assert "unfinished" in doctor.stores()[0].what
    shutil.rmtree(pets)
    remove(one(cache))
    assert list(cache.iterdir()) == []


def test_what_is_mapped_stays_until_it_is_let_go(pets: Path, cache: Path) -> None:
    images = packed(pets, cache)
    part = images.subset(np.array([1, 0]))
    shutil.rmtree(pets)
    del images
    finding, freed = doctor.removed_stores()
    assert "another process is using it" in finding.what
    assert freed.what.startswith("0.0 MB")
    assert part.gather(np.array([0]))[0].any()
    del part
    remove(one(cache))
    assert survey(cache) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_another_process_that_maps_it(gone: Path, cache: Path, tmp_path: Path) -> None:
    from compressl.data import cache as disk

    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        contents = disk.load(gone, 6)
        os.write(ready[1], b"1")
        os.read(done[0], 1)
        os._exit(int(not contents.images.any()))
    os.read(ready[0], 1)
    store = one(cache)
    with pytest.raises(InUse):
        remove(store)
    assert len(list(gone.iterdir())) == 5
    os.write(done[1], b"1")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    remove(store)
    assert not gone.exists()


def test_what_is_being_packed_stays(gone: Path, cache: Path) -> None:
    from compressl.runs import take_lock

    store = one(cache)
    with gone.with_name(f".{gone.name}.lock").open("a") as handle:
        assert take_lock(handle.fileno())
        with pytest.raises(InUse):
            remove(store)
    assert gone.exists()


def test_what_was_made_anew_meanwhile_stays(gone: Path, cache: Path, pets: Path, make_folder: MakeFolder) -> None:
    store = one(cache)
    packed(make_folder(pets, {"cats": 3, "dogs": 3}), cache)  # the same images are back
    with pytest.raises(InUse):
        remove(store)
    assert one(cache).stale == ""


FOREIGN: list[Callable[[Path], object]] = [
    lambda store: (store / "thesis.tex").write_text("years of work"),
    lambda store: (store / "more").mkdir(),
    lambda store: store.rename(store.with_name("photos")),
    lambda store: store.rename(store.with_name(f".{store.name}")),
    lambda store: ((store / "store.json").write_text("{}"), (store / "journal.jsonl").write_text("{}")),
    lambda store: ((store / "store.json").write_text("[1]"), (store / "journal.jsonl").unlink()),
    lambda store: ((store / "geometry.npy").unlink(), (store / "geometry.npy").symlink_to(store.parent.parent)),
    lambda store: store.symlink_to(store.rename(store.parent.parent / "real"), target_is_directory=True),
]


@pytest.mark.parametrize("fault", FOREIGN)
def test_what_is_no_store_of_ours_is_passed_over(gone: Path, cache: Path, fault: Callable[[Path], object]) -> None:
    fault(gone)
    (cache / "features").mkdir()
    (cache / "features" / "0.safetensors").write_bytes(b"0")
    before = sorted(cache.parent.rglob("*"))
    assert survey(cache) == []
    assert [finding.what for finding in doctor.removed_stores()] == ["0.0 MB freed in the cache"]
    assert sorted(cache.parent.rglob("*")) == before


def test_a_file_that_came_meanwhile_is_not_removed(gone: Path, cache: Path) -> None:
    store = one(cache)
    (gone / "thesis.tex").write_text("years of work")
    with pytest.raises(InUse):
        remove(store)
    assert (gone / "images.npy").exists()


def test_a_store_that_cannot_be_removed_is_named(gone: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refused)
    finding, freed = doctor.removed_stores()
    assert finding.verdict == "bad"
    assert "cannot be removed: Permission denied" in finding.what
    assert freed.what.startswith("0.0 MB")


def test_a_removal_that_is_killed_leaves_a_store_that_is_mended(
    pets: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.array(packed(pets, cache).images)
    store, unlink, left = one(cache), Path.unlink, []

    def few(self: Path, missing_ok: bool = False) -> None:
        if self.parent == store.folder:
            left.append(self)
            if len(left) > 2:
                raise KeyboardInterrupt
        unlink(self, missing_ok=missing_ok)

    moved = pets.rename(pets.with_name("moved"))
    monkeypatch.setattr(Path, "unlink", few)
    with pytest.raises(KeyboardInterrupt):
        remove(store)
    monkeypatch.setattr(Path, "unlink", unlink)
    moved.rename(pets)
    np.testing.assert_array_equal(packed(pets, cache).images, images)


def test_layouts_of_other_versions_are_not_verified(pets: Path, cache: Path) -> None:
    packed(pets, cache)
    folder = one(cache).folder
    (folder / "journal.jsonl").write_text(Layout("0" * 32, 6, 32, 32, False, version=1).line())
    assert doctor.packed_images().what.startswith("0 packed collections")

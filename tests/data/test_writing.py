"""A packing that ends early, in every way that it may."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compressl import doctor
from compressl.data import ArraySource, PackedImages, pack
from compressl.data import store as store_module
from compressl.data.cache import Damaged, verify
from compressl.data.journal import Layout
from compressl.data.packing import BLOCK
from compressl.errors import CompresslWarning, ResourceError

COUNT, SIDE = 640, 8


class Counted(ArraySource):
    """Random images that count their readings; ``broken`` ones cannot be read."""

    broken: tuple[int, ...] = ()

    def __init__(self) -> None:
        super().__init__(np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8), name="toy")
        self.reads: list[int] = []

    def read(self, index: int) -> np.ndarray:
        self.reads.append(index)
        if index in self.broken:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(index)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Every store goes to disk, in stretches of two blocks."""
    monkeypatch.setattr(store_module, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr("compressl.data.journal.STRETCH_BYTES", 2 * BLOCK * SIDE * SIDE * 3)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def packed(source: Counted, cache: Path, progress: Callable[[int, int], None] | None = None) -> PackedImages:
    return pack(source, view_size=SIDE, cache=cache, progress=progress)


def stop_at(images: int, how: Callable[[], object]) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= images:
            how()

    return progress


def interrupted() -> None:
    raise KeyboardInterrupt


def partial(cache: Path) -> Path:
    (found,) = cache.glob(".*.partial")
    return found


def store(cache: Path) -> Path:
    (found,) = cache.iterdir()  # nothing else is left
    return found


def in_child(work: Callable[[], object]) -> int:
    """Run in a forked process; its process number."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return child


def assert_same(cache: Path, elsewhere: Path) -> None:
    """The bytes on disk are those of a packing that nothing disturbed."""
    packed(Counted(), elsewhere)
    for file in ("images.npy", "geometry.npy", "store.json"):
        assert (store(cache) / file).read_bytes() == (store(elsewhere) / file).read_bytes(), file
    assert verify(store(cache)) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_killed_packing_goes_on(cache: Path, tmp_path: Path) -> None:
    child = in_child(lambda: packed(Counted(), cache, stop_at(320, lambda: os.kill(os.getpid(), signal.SIGKILL))))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    source, steps = Counted(), []
    again = packed(source, cache, lambda done, total: steps.append((done, total)))
    assert again.note == "Continuing: 256 of 640 images were packed before."  # 4 stretches; the fifth had no line yet
    assert sorted(source.reads) == list(range(256, COUNT))
    assert steps[0] == (64, COUNT)  # counted as they are checked
    assert steps[-1] == (COUNT, COUNT)
    np.testing.assert_array_equal(again.images, source.images)
    assert_same(cache, tmp_path / "undisturbed")
    assert packed(Counted(), cache).note == ""


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_keeps_what_is_written(code: int, cache: Path, tmp_path: Path, monkeypatch) -> None:
    def fails() -> None:
        raise OSError(code, "cannot write")

    with pytest.raises(ResourceError, match="COMPRESSL_CACHE"):
        packed(Counted(), cache, stop_at(320, fails))
    assert [path.name for path in cache.iterdir()] == [partial(cache).name]  # and no lock
    source = Counted()
    packed(source, cache)
    assert len(source.reads) == 384
    assert_same(cache, tmp_path / "undisturbed")


def test_ctrl_c_goes_on_and_ends_its_threads(cache: Path, tmp_path: Path) -> None:
    for stop in (100, 300, 500):
        with pytest.raises(KeyboardInterrupt):
            packed(Counted(), cache, stop_at(stop, interrupted))
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("compressl-decode")]
    source = Counted()
    assert "448 of 640 images were packed before" in packed(source, cache).note
    assert len(source.reads) == 192
    assert_same(cache, tmp_path / "undisturbed")


def tear(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda folder: tear(folder / "journal.jsonl"), 256),
        (lambda folder: (folder / "journal.jsonl").write_bytes(b""), 0),
        (lambda folder: (folder / "journal.jsonl").write_bytes(b"\xff\x00{}\n[1]\n"), 0),
        (lambda folder: flip(folder / "journal.jsonl", 100), 0),  # in the line about the whole
        (lambda folder: flip(folder / "images.npy", 128 + 70 * SIDE * SIDE * 3), 256),  # in the second stretch
        (lambda folder: flip(folder / "geometry.npy", 128 + 130 * 8), 256),  # in the third
        (lambda folder: tear(folder / "images.npy"), 0),
        (lambda folder: (folder / "geometry.npy").unlink(), 0),
    ],
)
def test_what_is_damaged_is_decoded_again(damage, kept: int, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        packed(Counted(), cache, stop_at(350, interrupted))
    damage(partial(cache))
    source = Counted()
    again = packed(source, cache)
    assert len(source.reads) >= COUNT - kept
    assert again.note == (f"Continuing: {kept} of 640 images were packed before." if kept else "")
    assert_same(cache, tmp_path / "undisturbed")


def test_only_the_damaged_stretch_of_a_finished_store_is_made_again(cache: Path, tmp_path: Path) -> None:
    packed(Counted(), cache)
    flip(store(cache) / "images.npy", 128 + 70 * SIDE * SIDE * 3)
    assert verify(store(cache)) == [(64, 128)]
    source = Counted()
    note = packed(source, cache).note
    assert "images.npy is not what was written" in note
    assert note.endswith("64 of 640 images were decoded again.")
    assert sorted(source.reads) == list(range(64, 128))
    assert_same(cache, tmp_path / "undisturbed")


def test_a_full_check_sees_what_samples_miss(cache: Path, monkeypatch) -> None:
    monkeypatch.setattr("compressl.data.cache._SAMPLE_BYTES", 16)
    packed(Counted(), cache)
    flip(store(cache) / "images.npy", 128 + 1000)
    assert packed(Counted(), cache).note == ""
    assert verify(store(cache)) == [(0, 64)]
    (store(cache) / "journal.jsonl").unlink()
    with pytest.raises(Damaged, match=r"journal\.jsonl is missing"):
        verify(store(cache))


def test_unreadable_images_are_remembered(cache: Path) -> None:
    Counted.broken = (3, 639)
    try:
        with pytest.raises(KeyboardInterrupt):
            packed(Counted(), cache, stop_at(350, interrupted))
        whole = packed(Counted(), cache)
    finally:
        Counted.broken = ()
    reason = "Input/output error"
    assert whole.unreadable == [("toy entry 3", reason), ("toy entry 639", reason)]
    assert packed(Counted(), cache).unreadable == whole.unreadable


def test_another_size_is_begun_anew(cache: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        packed(Counted(), cache, stop_at(350, interrupted))
    other = Layout("0" * 32, COUNT, SIDE, SIDE, True)
    (partial(cache) / "journal.jsonl").write_text(other.line())
    source = Counted()
    assert packed(source, cache).note == ""
    np.testing.assert_array_equal(packed(source, cache).images, source.images)


@pytest.mark.filterwarnings("ignore:Another process is packing")  # on a slow machine
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_two_processes_at_once(cache: Path, tmp_path: Path) -> None:
    def work(number: int) -> None:
        source = Counted()
        found = packed(source, cache)
        assert np.array_equal(found.images, source.images)
        (tmp_path / f"reads-{number}.json").write_text(json.dumps(len(source.reads)))

    children = [in_child(lambda number=number: work(number)) for number in range(3)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    reads = sorted(json.loads((tmp_path / f"reads-{number}.json").read_text()) for number in range(3))
    assert reads[2] >= COUNT  # one of them packed, the others waited for it; all looked at the headers
    assert_same(cache, tmp_path / "undisturbed")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_who_waits_says_so_and_shows_how_far_the_other_is(cache: Path, tmp_path: Path, monkeypatch) -> None:
    def until(file: str) -> None:
        deadline = time.monotonic() + 60
        while not (tmp_path / file).exists() and time.monotonic() < deadline:
            time.sleep(0.001)

    def other(done: int, total: int) -> None:
        if done == 320:  # of the fifth stretch nothing is on record yet
            (tmp_path / "begun").touch()
            until("seen")

    child = in_child(lambda: packed(Counted(), cache, other))
    until("begun")
    source, steps = Counted(), []

    def seen(done: int, total: int) -> None:
        steps.append((done, total))
        (tmp_path / "seen").touch()

    monkeypatch.setattr("compressl.data.writing._POLL", 0.001)
    with pytest.warns(CompresslWarning, match=f"packing the images of toy in {cache}: waiting") as said:
        found = packed(source, cache, seen)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(said) == 1
    assert steps[0] == (256, COUNT)
    assert source.reads == []  # how they are packed stands in what the other has begun
    np.testing.assert_array_equal(found.images, source.images)


def test_room_is_asked_for_what_is_missing(cache: Path, monkeypatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        packed(Counted(), cache, stop_at(600, interrupted))
    usage = shutil.disk_usage(cache)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=60_000))  # half of the whole
    assert "Continuing" in packed(Counted(), cache).note


def test_the_doctor_names_what_is_damaged(cache: Path, monkeypatch) -> None:
    monkeypatch.setenv("COMPRESSL_CACHE", str(cache))
    packed(Counted(), cache)
    assert doctor.packed_images().what == "1 packed collection in the cache, each what was written"
    flip(store(cache) / "images.npy", 128 + 70 * SIDE * SIDE * 3)
    found = doctor.packed_images()
    assert found.verdict == "bad"
    assert f"{store(cache)}: images 64 to 127" in found.what
    (store(cache) / "store.json").unlink()  # the cure
    source = Counted()
    packed(source, cache)
    assert sorted(source.reads) == list(range(64, 128))
    assert doctor.packed_images().verdict == "good"

"""Tar files in the WebDataset layout."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from compressl.data import TarSource, decode, open_source, open_splits, pack, tar_index
from compressl.data.source import LabelError
from compressl.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("COMPRESSL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path: Path, members: dict[str, bytes], **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    return path


@pytest.fixture
def shard(tmp_path: Path, photo, encode) -> Callable[..., Path]:
    """``shard("a.tar", [3, 1])``: a tar file of as many PNG images, with these labels."""

    def make(name: str, labels: list[int | str | None], first: int = 0, kind: str = "cls") -> Path:
        members: dict[str, bytes] = {}
        for i, label in enumerate(labels, first):
            members[f"{i:05}.png"] = encode(photo(20 + i, 16, seed=i))
            if label is not None:
                members[f"{i:05}.{kind}"] = (str(label) if kind == "cls" else json.dumps({"label": label})).encode()
        return write(tmp_path / name, members)

    return make


def images(source: TarSource) -> list[np.ndarray]:
    return [decode(source.read(i)) for i in range(len(source))]


def test_a_file(shard, photo) -> None:
    source = open_source(str(shard("pets.tar", [3, 1, 2])))
    assert isinstance(source, TarSource)
    assert (source.name, len(source)) == ("pets", 3)
    assert source.labels.tolist() == [3, 1, 2]
    assert source.labels.dtype == np.int64
    assert source.describe(1) == "pets.tar member 00001.png"
    for i, pixels in enumerate(images(source)):
        np.testing.assert_array_equal(pixels, np.asarray(photo(20 + i, 16, seed=i)))


def test_a_folder_of_shards_with_a_test_part(tmp_path: Path, shard) -> None:
    for number, name in enumerate(("train-0.tar", "train-1.tar", "val-0.tar")):
        shard(f"pets/{name}", ["cat", "dog", "cow"] if number < 2 else ["dog", "cat"], first=10 * number, kind="json")
    train, test, how = open_splits(str(tmp_path / "pets"))
    assert (len(train), len(test)) == (6, 2)
    assert train.class_names == test.class_names == ["cat", "cow", "dog"]
    assert train.labels.tolist() == [0, 2, 1] * 2
    assert test.labels.tolist() == [2, 0]
    assert train.describe(4) == "train-1.tar member 00011.png"
    assert "the files train*.tar and val*.tar" in how
    assert "kept for evaluation" in open_source(str(tmp_path / "pets")).note


def test_any_thread_reads_any_image(shard) -> None:
    source = open_source(str(shard("pets.tar", [None] * 30)))
    assert source.labels is None
    expected = images(source)
    with ThreadPoolExecutor(4) as pool:
        for i, pixels in enumerate(pool.map(lambda i: decode(source.read(i % 30)), range(120))):
            np.testing.assert_array_equal(pixels, expected[i % 30])


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_any_length_and_members_of_other_kinds(kind: int, tmp_path: Path, photo, encode) -> None:
    data = encode(photo())
    long = "/".join(["deep" * 20] * 4) + "/žluťoučký kůň.PNG"
    members = {
        long: data,
        "a/1.png": data,
        "b/1.png": data,
        "b/1.cls": b" 1\n",
        "a/1.cls": b"0",
        f"{long[:-3]}cls": b"2",
    }
    path = write(tmp_path / "pets.tar", members | {"a/.1.png": data, "1.txt": b"x", "1.seg.png": data}, format=kind)
    with tarfile.open(path, "a") as tar:
        folder, link = tarfile.TarInfo("folder.png"), tarfile.TarInfo("link.png")
        folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "a/1.png"
        tar.addfile(folder)
        tar.addfile(link)
    source = open_source(str(path))
    assert len(source) == 3
    names = (long, "a/1.png", "b/1.png")
    assert [source.describe(i) for i in range(3)] == [f"pets.tar member {name}" for name in names]
    assert source.labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"0.cls": b"1"}, r"member 1\.png has no label"),
        ({"0.cls": b"1", "1.cls": b"cat"}, "in words and in numbers"),
        ({"0.cls": b"1", "1.json": b"{"}, r"member 1\.png has a label of no known form"),
        ({"0.cls": b"1", "1.json": b'{"label": [1]}'}, "no known form"),
        ({"0.cls": b"1", "1.cls": b"\xff"}, "no known form"),
        ({"0.cls": b"1", "1.cls": b"-3"}, "has the label -3"),
    ],
)
def test_unusable_labels_stop_an_evaluation_alone(members, message: str, tmp_path: Path, photo, encode) -> None:
    data = encode(photo())
    path = str(write(tmp_path / "pets.tar", {"0.png": data, "1.png": data} | members))
    with pytest.raises(LabelError, match=message):
        open_source(path, "train")
    source = open_source(path)
    assert source.labels is None
    assert "The labels are not used" in source.note


@pytest.mark.parametrize("name", ["pets.tar.gz", "pets.tgz", "pets.tar"])
def test_compressed_files_are_refused(name: str, shard, tmp_path: Path) -> None:
    data = gzip.compress(shard("plain/a.tar", [1, 2]).read_bytes())
    path = tmp_path / "packed" / name
    path.parent.mkdir()
    path.write_bytes(data)
    for spec in (path, path.parent):
        with pytest.raises(DataError, match=rf"{name} is compressed.*Decompress it"):
            open_source(str(spec))


def test_a_file_that_is_cut_off_is_refused_wherever_it_is(shard, tmp_path: Path) -> None:
    whole = shard("pets.tar", [1, 2, 3]).read_bytes()
    cut = tmp_path / "cut.tar"
    end = len(whole.rstrip(b"\0"))
    for length in sorted({*range(512, end, 137), *range(512, end, 512)}):
        cut.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"^cut\.tar is damaged (behind its member 0000\d\.(png|cls)|at its)"):
            open_source(str(cut))
    cut.write_bytes(whole[:700])
    with pytest.raises(DataError, match=r"cut.tar is damaged (behind its member 00000\.png|at its beginning).*again"):
        open_source(str(cut))
    cut.write_bytes(b"no tar file" * 100)
    with pytest.raises(DataError, match=r"cut\.tar is damaged at its beginning"):
        open_source(str(cut))


def test_a_damaged_header_is_no_end(shard, tmp_path: Path) -> None:
    path = shard("pets.tar", [None, None, None])
    with tarfile.open(path) as tar:
        second = tar.getmembers()[1].offset
    data = bytearray(path.read_bytes())
    data[second + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"pets\.tar is damaged behind its member 00000\.png"):
        open_source(str(path))


def test_no_images_and_other_kinds_beside(shard, tmp_path: Path, photo, encode) -> None:
    with pytest.raises(DataError, match=r"holds no images.*000123\.jpg"):
        open_source(str(write(tmp_path / "empty.tar", {"readme.txt": b"x"})))
    root = shard("mixed/pets.tar", [1]).parent
    (root / "loose.png").write_bytes(encode(photo()))
    with pytest.raises(DataError, match=r"both tar files \(pets\.tar\) and image files \(loose\.png\)"):
        open_source(str(root))
    (root / "pets.tar").rename(root / "pets.tar.gz")  # what the images came in, say
    assert len(open_source(str(root))) == 1


def test_an_index_that_took_long_is_kept(shard, cache: Path, monkeypatch) -> None:
    path = shard("pets.tar", [1, 2])
    open_source(str(path))
    assert not cache.exists()
    monkeypatch.setattr(tar_index, "KEPT_AFTER", 0.0)
    first = open_source(str(path))
    scans = []
    original = tar_index._scan
    monkeypatch.setattr(tar_index, "_scan", lambda *given: scans.append(given) or original(*given))
    again = open_source(str(path))
    assert scans == []
    assert again.fingerprint() == first.fingerprint()
    assert again.labels.tolist() == [1, 2]
    assert again.read(1) == first.read(1)
    next(cache.iterdir()).write_bytes(b"PK damaged")
    assert open_source(str(path)).fingerprint() == first.fingerprint()
    assert len(scans) == 1
    shard("pets.tar", [1, 2, 3])
    assert len(open_source(str(path))) == 3


def test_fingerprint_follows_names_and_sizes(tmp_path: Path) -> None:
    contents = [{"a.png": b"1"}, {"a.png": b"12"}, {"b.png": b"1"}, {"a.png": b"1", "ab.png": b"1"}]
    seen = [TarSource(tmp_path, [write(tmp_path / "x.tar", members)], "x").fingerprint() for members in contents]
    assert len(set(seen)) == len(seen)
    write(tmp_path / "x.tar", contents[0])
    assert TarSource(tmp_path, [tmp_path / "x.tar"], "x").fingerprint() == seen[0]


def test_packed_and_on_demand(shard, tmp_path: Path) -> None:
    path = shard("pets.tar", [1] * 9)
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        data[tar.getmember("00004.png").offset_data] ^= 1
    path.write_bytes(data)
    source = open_source(str(path))
    packed = pack(source, view_size=16, cache=None, max_unreadable=0.2)
    assert packed.unreadable == [("pets.tar member 00004.png", "it is not an image of a known format")]
    lazy = pack(source, view_size=16, cache=None, keep="no", max_unreadable=0.2)
    chosen = np.array([8, 0, 3])
    for one, other in zip(packed.gather(chosen), lazy.gather(chosen), strict=True):
        np.testing.assert_array_equal(one, other)

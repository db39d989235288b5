from __future__ import annotations

import os
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from compressl.data import FolderSource, ParquetSource, UnreadableImage, decode, open_source
from compressl.errors import DataError, UsageError


class TestFolder:
    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    def test_zoo(self, zoo: Path) -> None:
        source = open_source(str(zoo))
        names = [source.describe(i) for i in range(len(source))]
        assert names == sorted(names)
        assert len(names) == len(set(names))  # the loop is not followed
        assert {"deep/UPPER.JPEG", "deep/directory.jpg/inside.png", "žluťoučký-kůň-馬.png"} <= set(names)
        assert not {".hidden.png", "notes.txt"} & set(names)
        assert source.labels is None  # some images lie in no folder
        bad = []
        for i in range(len(source)):
            try:
                assert decode(source.read(i)).shape[2] == 3
            except (UnreadableImage, OSError):
                bad.append(names[i])
        assert bad == [name for name in names if name.startswith("bad")]
        assert len(bad) == (7 if os.geteuid() == 0 else 8)

    def test_first_level_folders_are_classes(self, tmp_path: Path, make_folder) -> None:
        source = open_source(str(make_folder(tmp_path / "pets", {"dogs/small": 2, "dogs/large": 1, "cats": 2})))
        assert source.class_names == ["cats", "dogs"]
        assert source.labels.tolist() == [0, 0, 1, 1, 1]
        assert source.labels.dtype == np.int64
        assert source.describe(0) == "cats/000.png"

    @pytest.mark.parametrize("counts", [{"only": 3}, {".": 1, "cats": 1, "dogs": 1}])
    def test_otherwise_there_are_no_labels(self, tmp_path: Path, make_folder, counts) -> None:
        source = open_source(str(make_folder(tmp_path / "photos", counts)))
        assert source.labels is None
        assert source.class_names is None

    def test_fingerprint_follows_names_and_sizes(self, tmp_path: Path, make_folder) -> None:
        root = make_folder(tmp_path / "pets", {"cats": 2, "dogs": 2})
        seen = [FolderSource(root).fingerprint()]
        assert FolderSource(root).fingerprint() == seen[0]
        steps = [
            lambda: (root / "cats/new.png").write_bytes(b"1234"),
            lambda: (root / "cats/new.png").rename(root / "cats/newer.png"),
            lambda: (root / "cats/newer.png").write_bytes(b"12345"),
        ]
        for step in steps:
            step()
            seen.append(FolderSource(root).fingerprint())
        assert len(set(seen)) == len(seen)
        (root / "cats/newer.png").unlink()
        assert FolderSource(root).fingerprint() == seen[0]
        moved = root.rename(tmp_path / "elsewhere")
        assert FolderSource(moved).fingerprint() == seen[0]

    def test_no_images(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("x")
        with pytest.raises(DataError, match=r"holds no images.*\.jpg"):
            open_source(str(tmp_path))

    def test_unknown_specs_name_the_kinds(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"'nowhere' is neither .* digits"):
            open_source("nowhere")
        (tmp_path / "archive.zip").write_bytes(b"PK")
        with pytest.raises(DataError, match="of a kind that is not read"):
            open_source(str(tmp_path / "archive.zip"))
        with pytest.raises(UsageError, match="'dev' is not known"):
            open_source("digits", "dev")


class TestNpy:
    @pytest.mark.parametrize("shape", [(5, 4, 6), (5, 4, 6, 1), (5, 4, 6, 3), (5, 4, 6, 4)])
    def test_shapes(self, tmp_path: Path, shape) -> None:
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        if shape[-1] == 4:
            images[..., 3] = 255
        np.save(tmp_path / "toy.npy", images)
        np.save(tmp_path / "toy.labels.npy", np.array([0, 1, 2, 1, 0], np.int32))
        source = open_source(str(tmp_path / "toy.npy"))
        expected = images[2] if len(shape) == 4 else images[2, :, :, None]
        np.testing.assert_array_equal(source.read(2), np.broadcast_to(expected[..., :3], (4, 6, 3)))
        assert source.labels.tolist() == [0, 1, 2, 1, 0]
        assert source.labels.dtype == np.int64
        assert source.describe(2) == "toy.npy entry 2"

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (np.zeros((5, 4, 4, 3), np.float32), "float32.*uint8"),
            (np.zeros((5, 3, 32, 32), np.uint8), "channels come first.*transpose"),
            (np.zeros((32, 32, 3), np.uint8), "single image"),
            (np.zeros((5, 4, 4, 2), np.uint8), "1, 3 or 4"),
            (np.zeros((0, 4, 4, 3), np.uint8), "no images"),
            (np.zeros(5, np.uint8), "uint8 .5."),
        ],
    )
    def test_other_arrays_are_refused(self, tmp_path: Path, images, message: str) -> None:
        np.save(tmp_path / "toy.npy", images)
        with pytest.raises(DataError, match=message):
            open_source(str(tmp_path / "toy.npy"))

    @pytest.mark.parametrize(
        ("labels", "message"),
        [(np.zeros(4, int), "one integer per image"), (np.zeros(5), "float64"), (np.array([0, 1, -1, 0, 1]), "row 2")],
    )
    def test_labels_must_fit(self, tmp_path: Path, labels, message: str) -> None:
        np.save(tmp_path / "toy.npy", np.zeros((5, 8, 8), np.uint8))
        np.save(tmp_path / "toy.labels.npy", labels)
        with pytest.raises(DataError, match=message):
            open_source(str(tmp_path / "toy.npy"), "train")

    def test_a_pickle_is_refused_and_runs_nothing(self, tmp_path: Path) -> None:
        sentinel = tmp_path / "executed"

        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(sentinel),)

        np.save(tmp_path / "evil.npy", np.array([Evil()], dtype=object), allow_pickle=True)
        with pytest.raises(DataError, match="pickle"):
            open_source(str(tmp_path / "evil.npy"))
        assert not sentinel.exists()
        np.load(tmp_path / "evil.npy", allow_pickle=True)  # the file is armed: the check above could have failed
        assert sentinel.exists()

    def test_content_is_in_the_fingerprint(self, tmp_path: Path) -> None:
        images = np.zeros((5, 8, 8), np.uint8)
        np.save(tmp_path / "toy.npy", images)
        before = open_source(str(tmp_path / "toy.npy")).fingerprint()
        images[3, 4, 5] = 1
        np.save(tmp_path / "toy.npy", images)
        assert open_source(str(tmp_path / "toy.npy")).fingerprint() != before


class TestParquet:
    def test_shards_in_order_with_names(self, tmp_path: Path, make_parquet) -> None:
        for shard, labels in enumerate(([2, 0, 1], [1, 1], [0])):
            make_parquet(tmp_path / f"set/part-{shard}.parquet", labels, ["a", "b", "c"])
        source = open_source(str(tmp_path / "set"))
        assert source.labels.tolist() == [2, 0, 1, 1, 1, 0]
        assert source.class_names == ["a", "b", "c"]
        assert [source.describe(i) for i in (2, 3, 5)] == [
            "part-0.parquet row 2",
            "part-1.parquet row 0",
            "part-2.parquet row 0",
        ]

    @pytest.mark.parametrize(("column", "plain"), [("image", True), ("img", False), ("image", False), ("png", True)])
    def test_every_row_is_its_own(self, tmp_path: Path, make_parquet, photo, encode, column, plain) -> None:
        data = [encode(photo(8, 8, seed=i)) for i in range(7)]
        path = make_parquet(tmp_path / "x.parquet", None, images=data, column=column, plain=plain)
        source = open_source(str(path))
        assert source.labels is None
        assert [source.read(i) for i in (6, 0, 3, 1, 5, 2, 4)] == [data[i] for i in (6, 0, 3, 1, 5, 2, 4)]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(source.read, list(range(7)) * 20)) == data * 20

    def test_row_groups_are_read_once_in_passing(self, tmp_path: Path, make_parquet, monkeypatch) -> None:
        source = open_source(str(make_parquet(tmp_path / "x.parquet", list(range(8)))))
        reads = []
        original = ParquetSource._read_group
        monkeypatch.setattr(ParquetSource, "_read_group", lambda self, n: reads.append(n) or original(self, n))
        monkeypatch.setattr("compressl.data.parquet.CACHE_BYTES", 0)  # two groups are kept whatever their size
        for i in range(8):
            source.read(i)
        assert reads == [0, 1, 2, 3]
        source.read(5)
        source.read(0)
        assert reads == [0, 1, 2, 3, 0]

    def test_string_labels_are_numbered_alphabetically(self, tmp_path: Path, make_parquet) -> None:
        source = open_source(str(make_parquet(tmp_path / "x.parquet", ["dog", "cat", "dog"])))
        assert source.class_names == ["cat", "dog"]
        assert source.labels.tolist() == [1, 0, 1]

    def test_labels_withheld(self, tmp_path: Path, make_parquet) -> None:
        assert open_source(str(make_parquet(tmp_path / "x.parquet", [-1, -1, -1], ["a"]))).labels is None

    def test_a_null_image_is_one_unreadable_row(self, tmp_path: Path, make_parquet) -> None:
        source = open_source(str(make_parquet(tmp_path / "x.parquet", None, images=[b"1", None, b"3"])))
        assert source.read(0) == b"1"
        with pytest.raises(UnreadableImage, match="null"):
            source.read(1)
        assert source.describe(1) == "x.parquet row 1"

    def test_wrong_tables_name_file_and_column(self, tmp_path: Path, make_parquet) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        def write(**columns) -> str:
            pq.write_table(pa.table(columns), tmp_path / "wrong.parquet")
            return str(tmp_path / "wrong.parquet")

        for columns, message in [
            ({"text": ["a"], "label": [0]}, r"wrong\.parquet has no column .* text \(string\), label \(int64\)"),
            ({"image": ["a"]}, r"image \(string\)"),
            ({"left": [b"a"], "right": [b"b"]}, r"left \(binary\), right \(binary\)"),
            ({"image": [b"a"], "label": [0.5]}, r"wrong\.parquet: the column label is of type double"),
            ({"image": [b"a", b"b"], "label": [0, None]}, "column label: row 1 has the label -1"),
            ({"image": pa.array([], pa.binary())}, "no rows"),
        ]:
            with pytest.raises(DataError, match=message):
                open_source(write(**columns), "train")
        with pytest.raises(DataError, match="row 1 has the label 7, but there are 2 class names"):
            open_source(str(make_parquet(tmp_path / "y.parquet", [0, 7], ["a", "b"])), "train")
        (tmp_path / "broken.parquet").write_bytes(b"PAR1 not really PAR1")
        with pytest.raises(DataError, match=r"broken\.parquet is not a readable Parquet file"):
            open_source(str(tmp_path / "broken.parquet"))

    def test_shards_must_agree(self, tmp_path: Path, make_parquet) -> None:
        make_parquet(tmp_path / "set/a.parquet", [0, 1])
        make_parquet(tmp_path / "set/b.parquet", [0, 1], column="picture")
        with pytest.raises(DataError, match=r"b\.parquet has no image column image, unlike a\.parquet"):
            open_source(str(tmp_path / "set"))

    def test_damage_and_excess_name_the_row_group(self, tmp_path: Path, make_parquet, monkeypatch) -> None:
        path = make_parquet(tmp_path / "x.parquet", None, images=[os.urandom(5000) for _ in range(4)])
        data = bytearray(path.read_bytes())
        data[4:60] = b"\xff" * 56  # the first page's header
        (tmp_path / "damaged.parquet").write_bytes(data)
        with pytest.raises(DataError, match=r"damaged\.parquet: row group 0, column image"):
            open_source(str(tmp_path / "damaged.parquet")).read(0)
        monkeypatch.setattr("compressl.data.parquet.GROUP_BYTES", 1000)
        with pytest.raises(
            DataError, match=r"x\.parquet: row group 0, column image, takes .* of memory.*row_group_size"
        ):
            open_source(str(path))

    def test_fingerprint_follows_the_rows(self, tmp_path: Path, make_parquet) -> None:
        path = tmp_path / "x.parquet"
        prints = [open_source(str(make_parquet(path, labels))).fingerprint() for labels in ([0, 1], [1, 0], [0, 1])]
        assert prints[0] == prints[2] != prints[1]

    def test_a_mixed_folder_is_ambiguous(self, tmp_path: Path, make_parquet, make_folder) -> None:
        make_parquet(tmp_path / "set/a.parquet", [0, 1])
        make_folder(tmp_path / "set", {"cats": 1})
        with pytest.raises(DataError, match=r"both Parquet files .* and image files"):
            open_source(str(tmp_path / "set"))


class TestNamed:
    def test_a_bare_name_is_looked_for_in_the_data_folder(self, tmp_path: Path, make_parquet, monkeypatch) -> None:
        make_parquet(tmp_path / "given/cifar10/train.parquet", [0, 1, 1], ["a", "b"])
        make_parquet(tmp_path / "given/cifar10/test.parquet", [1, 0], ["a", "b"])
        monkeypatch.setenv("COMPRESSL_DATA", str(tmp_path / "given"))
        assert [len(open_source("cifar10", split)) for split in ("train", "test", None)] == [3, 2, 3]
        monkeypatch.delenv("COMPRESSL_DATA")
        (tmp_path / "project").mkdir()
        (tmp_path / "given").rename(tmp_path / "shared")
        (tmp_path / "shared/data").mkdir()
        (tmp_path / "shared/cifar10").rename(tmp_path / "shared/data/cifar10")
        for here in (tmp_path / "project", tmp_path):
            monkeypatch.chdir(here)
            assert len(open_source("cifar10", "test")) == 2

    def test_without_the_extra_a_sentence_says_how(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setenv("COMPRESSL_DATA", str(tmp_path))
        monkeypatch.setitem(sys.modules, "datasets", None)
        for spec in ("hf:owner/name", "cifar10", "cifar100"):
            with pytest.raises(UsageError, match=r'pip install "compressl\[hub\]"'):
                open_source(spec)


class FakeTable:
    """As much of ``datasets.Dataset`` as is used."""

    def __init__(self, columns: dict[str, list], features: dict[str, object]) -> None:
        self.columns, self.features, self._fingerprint = columns, features, "f00d"

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key):
        return self.columns[key] if isinstance(key, str) else {name: rows[key] for name, rows in self.columns.items()}

    def select_columns(self, names: list[str]) -> FakeTable:
        return FakeTable({name: self.columns[name] for name in names}, {name: self.features[name] for name in names})

    def cast_column(self, name: str, kind) -> FakeTable:
        assert kind.decode is False
        return self


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the ``datasets`` library; ``hub.asked`` lists what was loaded, and with which options."""
    module = types.ModuleType("datasets")
    module.__version__ = "4.1.0"

    class Image:
        def __init__(self, decode: bool = True) -> None:
            self.decode = decode

    label = types.SimpleNamespace(names=["cat", "dog"])
    features = {"img": Image(), "label": label}

    def table(labels: list[int]) -> FakeTable:
        images = [{"bytes": bytes([i]), "path": None} for i in range(len(labels))]
        return FakeTable({"img": images, "label": labels}, features)

    module.Image = Image
    module.asked = []
    module.splits = {"train": table([0, 1, 1]), "test": table([1, 0])}
    module.load_dataset = lambda *names, **options: module.asked.append((names, options)) or module.splits
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


class TestHub:
    def test_splits_labels_and_bytes(self, hub) -> None:
        source = open_source("hf:owner/pets", "test")
        assert source.labels.tolist() == [1, 0]
        assert source.class_names == ["cat", "dog"]
        assert source.read(1) == b"\x01"
        assert source.describe(1) == "owner-pets-test row 1"
        assert "kept for evaluation" in open_source("hf:owner/pets").note
        assert all(options == {} for _, options in hub.asked)  # above all, no trust_remote_code

    def test_cifar_comes_from_the_hub_when_it_is_nowhere_else(self, hub, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setenv("COMPRESSL_DATA", str(tmp_path))
        assert len(open_source("cifar10", "train")) == 3
        assert hub.asked == [(("uoft-cs/cifar10",), {})]

    def test_an_old_library_is_refused_before_it_loads(self, hub) -> None:
        hub.__version__ = "3.6.0"
        with pytest.raises(UsageError, match=r"datasets 4 or newer"):
            open_source("hf:owner/pets")
        assert hub.asked == []

    def test_failures_are_data_errors(self, hub, monkeypatch) -> None:
        hub.splits = {"dev": hub.splits["train"], "extra": hub.splits["test"]}
        with pytest.raises(DataError, match="has the splits dev, extra"):
            open_source("hf:owner/pets")

        def offline(name: str):
            raise ConnectionError("no route to the hub")

        monkeypatch.setattr(hub, "load_dataset", offline)
        with pytest.raises(DataError, match="no route to the hub"):
            open_source("hf:owner/pets")

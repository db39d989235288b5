"""A pretraining needs no labels, so it does not stop at bad ones; an evaluation does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compressl.data import open_source, open_splits
from compressl.errors import DataError

PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS\xde\x00\x00\x00\x0c"
    b"IDATx\x9cc\xf8\xcf\xc0\x00\x00\x03\x01\x01\x00\xc9\xfe\x92\xef\x00\x00\x00\x00IEND\xaeB`\x82"
)


def _parquet(path: Path, labels: pa.Array) -> Path:
    images = pa.array([{"bytes": PNG, "path": None}] * 10)
    pq.write_table(pa.table({"image": images, "label": labels}), path / "a.parquet")
    return path / "a.parquet"


def _array(path: Path, labels: np.ndarray) -> Path:
    np.save(path / "a.npy", np.zeros((10, 4, 4, 3), np.uint8))
    np.save(path / "a.labels.npy", labels)
    return path / "a.npy"


@pytest.mark.parametrize(
    "make",
    [
        lambda path: _parquet(path, pa.array(np.linspace(0, 1, 10))),
        lambda path: _parquet(path, pa.array([0, None] * 5)),
        lambda path: _parquet(path, pa.array(["a", None] * 5)),
        lambda path: _array(path, np.arange(7)),
        lambda path: _array(path, np.array([0, -1] * 5)),
        lambda path: _array(path, np.zeros(10)),
    ],
)
def test_bad_labels_stop_an_evaluation_alone(make: Callable[[Path], Path], tmp_path: Path) -> None:
    file = str(make(tmp_path))
    source = open_source(file)
    assert len(source) == 10
    assert source.labels is None
    assert "The labels are not used: " in source.note
    with pytest.raises(DataError):
        open_splits(file)

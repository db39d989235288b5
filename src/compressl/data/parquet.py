"""Parquet files in the Hugging Face image layout, as the data sets of its hub are published."""

from __future__ import annotations

import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressl.data.decode import UnreadableImage
from compressl.data.source import LabelError, Labels, checked_labels, digest, if_usable
from compressl.errors import DataError, first_line

IMAGE_COLUMN = "image"
LABEL_COLUMNS = ("label", "labels", "fine_label")  # the first that is there
CACHE_BYTES = 2**30  # decompressed row groups kept, beyond the two newest
GROUP_BYTES = 4 * 2**30  # a row group is read whole: one larger than this would take the memory by surprise
_TAIL = 65536  # the end of a file holds its row groups' offsets and sizes


class ParquetSource:
    """Images of one or several Parquet files, in the order given.

    The column ``image`` is a struct with a field ``bytes``, or plain binary; without one of that name, the only column
    of such a type is taken. ``label`` (``labels``, ``fine_label``) is optional: integers, with class names from the
    schema's ``huggingface`` metadata if they are there, or strings.

    Raises:
        DataError: naming the file and the column that does not fit.
    """

    def __init__(self, root: Path, files: Sequence[Path], name: str) -> None:
        self.name = name
        self.note = ""
        self.files = list(files)
        self.shown = [file.relative_to(root).as_posix() if file != root else file.name for file in self.files]
        self._readers = [_open(file) for file in self.files]
        schemas = [reader.schema_arrow for reader in self._readers]
        self.column = _image_column(schemas[0], self.shown[0])
        self._groups: list[tuple[int, int]] = []  # (file, row group) of each row group in the data set
        self._starts = [0]  # first row of each of them, and the number of rows
        self.nbytes = 0  # of all images, decompressed
        self._file_starts = [0, *accumulate(reader.metadata.num_rows for reader in self._readers)]
        for number, (reader, schema) in enumerate(zip(self._readers, schemas, strict=True)):
            self._check_column(schema, number)
            for group in range(reader.metadata.num_row_groups):
                self.nbytes += self._checked_size(reader.metadata.row_group(group), number, group)
                self._groups.append((number, group))
                self._starts.append(self._starts[-1] + reader.metadata.row_group(group).num_rows)
        if len(self) == 0:
            raise DataError(f"{root} holds no images: its Parquet files have no rows.", "Give files with rows.")
        self.labels: Labels | None
        self.class_names: list[str] | None
        nothing: tuple[Labels | None, list[str] | None] = (None, None)
        self.labels, self.class_names = if_usable(lambda: self._read_labels(schemas), nothing)
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, Any] = OrderedDict()  # row group -> column of bytes

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, index: int) -> bytes:
        group = bisect_right(self._starts, index) - 1
        value = self._group(group)[index - self._starts[group]].as_py()
        if value is None:
            raise UnreadableImage("the image is null")
        return bytes(value)

    def describe(self, index: int) -> str:
        file = bisect_right(self._file_starts, index) - 1
        return f"{self.shown[file]} row {index - self._file_starts[file]}"

    def fingerprint(self) -> str:
        return digest(
            (shown, file.stat().st_size, _tail(file)) for shown, file in zip(self.shown, self.files, strict=True)
        )

    def _group(self, number: int) -> Any:
        with self._lock:  # one reader at a time: the others mostly wait for this very row group
            if number in self._cache:
                self._cache.move_to_end(number)
                return self._cache[number]
            column = self._read_group(number)
            self._cache[number] = column
            while len(self._cache) > 2 and sum(kept.nbytes for kept in self._cache.values()) > CACHE_BYTES:
                self._cache.popitem(last=False)
            return column

    def _read_group(self, number: int) -> Any:
        import pyarrow as pa
        import pyarrow.compute as pc

        file, group = self._groups[number]
        reader = self._readers[file]
        try:
            if pa.types.is_struct(reader.schema_arrow.field(self.column).type):
                table = reader.read_row_group(group, columns=[f"{self.column}.bytes"])
                return pc.struct_field(table.column(self.column), "bytes")
            return reader.read_row_group(group, columns=[self.column]).column(self.column)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{self.shown[file]}: row group {group}, column {self.column}, cannot be read: {first_line(error)}.",
                "The file is damaged; fetch or write it again.",
            ) from error

    def _check_column(self, schema: Any, number: int) -> None:
        if self.column not in schema.names or not _holds_images(schema.field(self.column).type):
            raise DataError(
                f"{self.shown[number]} has no image column {self.column}, unlike {self.shown[0]}; {_columns(schema)}.",
                "Give files of one data set.",
            )

    def _checked_size(self, group: Any, number: int, position: int) -> int:
        columns = (group.column(i) for i in range(group.num_columns))
        size: int = sum(c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] == self.column)
        if size > GROUP_BYTES:
            raise DataError(
                f"{self.shown[number]}: row group {position}, column {self.column}, takes {size / 2**20:.0f} MiB "
                f"of memory, more than the {GROUP_BYTES // 2**20} allowed.",
                "Write the file again with fewer rows in a group (row_group_size=1000).",
            )
        return size

    def _read_labels(self, schemas: list[Any]) -> tuple[Labels | None, list[str] | None]:
        name = next((column for column in LABEL_COLUMNS if column in schemas[0].names), None)
        if name is None:
            return None, None
        parts = []
        for shown, reader, schema in zip(self.shown, self._readers, schemas, strict=True):
            if name not in schema.names:
                raise DataError(f"{shown} has no column {name}, unlike {self.shown[0]}.", "Give files of one data set.")
            parts.append(_label_values(reader, name, shown))
        classes = _class_names(schemas[0], name)
        if any(part.dtype.kind == "U" for part in parts):
            classes = sorted({str(value) for part in parts for value in np.unique(part)})
            parts = [np.searchsorted(np.array(classes), part) for part in parts]
        labels = np.concatenate([part.astype(np.int64) for part in parts])
        return checked_labels(labels, classes, f"{self.name}, column {name}"), classes


def _open(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file} is not a readable Parquet file: {first_line(error)}.", "Fetch or write it again."
        ) from error


def _image_column(schema: Any, shown: str) -> str:
    fitting = [field.name for field in schema if _holds_images(field.type)]
    if IMAGE_COLUMN in fitting:
        return IMAGE_COLUMN
    if len(fitting) == 1 and IMAGE_COLUMN not in schema.names:
        return str(fitting[0])
    raise DataError(
        f"{shown} has no column that is clearly of images; {_columns(schema)}.",
        f"Name one {IMAGE_COLUMN}, of type binary or struct<bytes: binary, path: string>.",
    )


def _holds_images(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_images(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _columns(schema: Any) -> str:
    return "its columns are " + ", ".join(f"{field.name} ({field.type})" for field in schema)


def _label_values(reader: Any, name: str, shown: str) -> NDArray[Any]:
    import pyarrow as pa

    column = reader.read(columns=[name]).column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_integer(column.type):
        return np.asarray(column.fill_null(-1).to_numpy())
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        if column.null_count:
            raise LabelError(f"{shown}: the column {name} has rows without a value.", "Give every image a label.")
        return np.asarray(column.to_pylist(), dtype=np.str_)
    raise LabelError(
        f"{shown}: the column {name} is of type {column.type}.", "Labels are integers from 0, or strings; convert them."
    )


def _class_names(schema: Any, name: str) -> list[str] | None:
    """Class names in the schema's metadata, where the ``datasets`` library keeps them."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        names = about["info"]["features"][name]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(each) for each in names] if isinstance(names, list) else None


def _tail(file: Path) -> bytes:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _TAIL))
        return stream.read()

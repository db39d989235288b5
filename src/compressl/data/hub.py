"""Data sets of the Hugging Face hub, through the optional ``datasets`` library. Data files alone: from version 4 on it
runs no code of a data set, and it is never asked to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from compressl.data.decode import UnreadableImage
from compressl.data.parquet import LABEL_COLUMNS
from compressl.data.source import Family, Labels, Source, checked_labels, digest, if_usable
from compressl.errors import DataError, UsageError

_TEST_NAMES = ("test", "validation", "valid", "val")
_OLDEST = 4  # before it, load_dataset could run a data set's own script


class HubSource:
    """One split of a hub data set, as its encoded images.

    Raises:
        DataError: if it has no image column.
    """

    def __init__(self, table: Any, name: str) -> None:
        from datasets import Image

        images = [column for column, kind in table.features.items() if isinstance(kind, Image)]
        if len(images) != 1:
            raise DataError(
                f"hf:{name} has {len(images)} image columns; its columns are {', '.join(table.features)}.",
                "Give a data set with one.",
            )
        self.name = name.replace("/", "-")
        self.note = ""
        self._column = images[0]
        self._table = table.select_columns(images).cast_column(self._column, Image(decode=False))
        self._lock = threading.Lock()
        self._fingerprint = digest([(name, len(table), str(getattr(table, "_fingerprint", "")))])
        label = next((column for column in LABEL_COLUMNS if column in table.features), None)
        self.labels: Labels | None = None
        self.class_names: list[str] | None = None
        if label is not None:
            names = getattr(table.features[label], "names", None)
            self.class_names = list(names) if names else None
            values = np.array([-1 if value is None else value for value in table[label]], dtype=np.int64)
            where = f"hf:{name}, column {label}"
            self.labels = if_usable(lambda: checked_labels(values, self.class_names, where), None)

    def __len__(self) -> int:
        return len(self._table)

    def read(self, index: int) -> bytes:
        with self._lock:
            value = self._table[index][self._column]
        if value is None or value.get("bytes") is None:
            raise UnreadableImage("the image is null, or not stored in the data set itself")
        return bytes(value["bytes"])

    def describe(self, index: int) -> str:
        return f"{self.name} row {index}"

    def fingerprint(self) -> str:
        return self._fingerprint


def hub_family(name: str) -> Family:
    """The splits of a data set on the hub.

    Raises:
        UsageError: if the ``hub`` extra is absent.
        DataError: if the data set cannot be fetched.
    """
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            f"hf:{name} needs the Hugging Face libraries.", 'Install them with: pip install "compressl[hub]"'
        ) from error
    if int(datasets.__version__.split(".")[0]) < _OLDEST:
        raise UsageError(
            f"hf:{name} needs datasets {_OLDEST} or newer, which runs no foreign code; this is {datasets.__version__}.",
            'Install it with: pip install -U "compressl[hub]"',
        )
    try:
        splits = datasets.load_dataset(name)
    except Exception as error:  # the network, the hub and a dozen readers fail each in their own way
        raise DataError(
            f"hf:{name} could not be loaded: {(str(error).splitlines() or [type(error).__name__])[0]}",
            "Check the name and the network, or give a folder or Parquet files.",
        ) from error
    test = next((split for split in _TEST_NAMES if split in splits), None)
    if "train" in splits and test is not None:
        parts = {"train": _opener(splits["train"], f"{name}-train"), "test": _opener(splits[test], f"{name}-{test}")}
        return Family(parts, how=f"its own splits train and {test}")
    if len(splits) == 1:
        return Family({"all": _opener(next(iter(splits.values())), name)})
    raise DataError(
        f"hf:{name} has the splits {', '.join(splits)}, of which none is train beside a test or validation split.",
        "Save the one you want as a Parquet file and give that.",
    )


def _opener(table: Any, name: str) -> Callable[[], Source]:
    return lambda: HubSource(table, name)

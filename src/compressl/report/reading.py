"""What a run folder tells, read so that a missing, damaged or unfinished piece costs only that piece."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressl.measures.intervals import Estimate
from compressl.measures.packing import unpack_bits
from compressl.runs import RunFolder

MEASURES = {"linear": "linear probe", "knn": "nearest neighbours"}
BASELINES = {"random encoder": "a random encoder", "raw pixels": "raw pixels"}
NATS_PER_BIT = math.log(2)
SHORT = 16  # letters of a name that still fit at the end of a curve

Series = list[tuple[int, float]]


def bits(nats: float) -> float:
    """Information in bits.

    >>> bits(math.log(8))
    3.0
    """
    return nats / NATS_PER_BIT


@dataclass(frozen=True)
class Measured:
    """A figure, its interval, and which test images were classified rightly (None where that is not on record)."""

    estimate: Estimate
    correct: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Evaluated:
    """evaluation.json."""

    data: dict[str, Any]
    protocol: dict[str, Any]
    environment: dict[str, Any]
    results: dict[str, dict[str, Measured]]
    """representation -> measure; empty where accuracy was not asked for."""
    dimensions: dict[str, int | None]
    """representation -> length of its feature vector."""
    record: dict[str, Any]
    """All of it, for the measures."""

    @property
    def ground(self) -> tuple[object, ...]:
        """What must be equal for figures to be comparable."""
        return (self.data.get("test_fingerprint"), self.data.get("train_images"), *map(self.protocol.get, MEASURES))


@dataclass(frozen=True)
class Run:
    """One run, as far as it can be read."""

    name: str
    label: str
    """Short enough for the end of a curve."""
    folder: RunFolder
    status: str | None
    reason: str
    config: str
    settings: dict[str, Any]
    """Resolved settings by dotted name."""
    environment: dict[str, Any]
    metrics: list[dict[str, Any]]
    evaluation: Evaluated | None
    damaged: tuple[str, ...]
    """Files that are there but cannot be read."""

    @property
    def scored(self) -> Evaluated | None:
        """The evaluation, if accuracy is in it."""
        return self.evaluation if self.evaluation and self.evaluation.results else None

    @property
    def steps(self) -> int:
        return max((line["step"] for line in self.metrics), default=0)

    @property
    def epochs(self) -> int:
        """Epochs begun."""
        return max((int(line["epoch"]) + 1 for line in self.metrics if _is_number(line.get("epoch"))), default=0)

    @property
    def events(self) -> list[tuple[int, str]]:
        return [(line["step"], str(line["event"])) for line in self.metrics if line.get("event")]

    def series(self, key: str) -> Series:
        """The finite values of one quantity by step; a dot leads into a table (``time.waiting``)."""
        group, _, last = key.rpartition(".")
        found = []
        for line in self.metrics:
            table = line.get(group, {}) if group else line
            value = table.get(last) if isinstance(table, dict) else None
            if isinstance(value, int | float) and math.isfinite(value):
                found.append((line["step"], float(value)))
        return found


def read_runs(folders: Sequence[RunFolder]) -> list[Run]:
    """All runs, with names that tell them apart."""
    names = distinct_names([folder.path for folder in folders])
    fits = all(len(name) <= SHORT for name in names)
    return [
        _read_run(folder, name, name if fits or len(names) == 1 else letter(i))
        for i, (folder, name) in enumerate(zip(folders, names, strict=True))
    ]


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The names of folders, with as many parents as tell them apart.

    >>> distinct_names([Path("a/run"), Path("b/run"), Path("b/other")])
    ['a/run', 'b/run', 'other']
    """
    parts = [[printable(part) for part in path.absolute().parts] for path in paths]
    names = [own[-1] for own in parts]
    for depth in range(2, max(map(len, parts), default=0) + 1):
        names = ["/".join(own[-depth:]) if names.count(n) > 1 else n for own, n in zip(parts, names, strict=True)]
    return [f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def letter(index: int) -> str:
    """A, B, ..., Z, A1, B1, ..."""
    return chr(ord("A") + index % 26) + (str(index // 26) if index >= 26 else "")


def printable(text: object) -> str:
    """Text without control characters and lone surrogates, which no encoding takes."""
    return "".join(c if c.isprintable() else "�" for c in str(text))


def read_png(path: Path) -> bytes | None:
    """A picture, or None if it is absent or no whole PNG."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    whole = content.startswith(b"\x89PNG\r\n\x1a\n") and content.rstrip(b"\0").endswith(b"IEND\xaeB`\x82")
    return content if whole else None


def _read_run(folder: RunFolder, name: str, label: str) -> Run:
    damaged: list[str] = []
    record = _read_json(folder.path / "run.json", damaged)
    config, settings = _read_config(folder.config, damaged)
    evaluation = None
    if found := _read_json(folder.evaluation, damaged):
        try:
            evaluation = parse_evaluation(found)
        except (KeyError, TypeError, ValueError, AttributeError):
            damaged.append(folder.evaluation.name)
    try:
        lines = folder.read_metrics()
    except (OSError, ValueError):
        lines = []
        damaged.append(folder.metrics.name)
    return Run(
        name=name,
        label=label,
        folder=folder,
        status=record.get("status"),
        reason=str(record.get("reason", "")),
        config=config,
        settings=settings,
        environment=_read_json(folder.environment, damaged),
        metrics=[line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)],
        evaluation=evaluation,
        damaged=tuple(damaged),
    )


def parse_evaluation(record: dict[str, Any]) -> Evaluated:
    """evaluation.json, checked.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is not one.
    """
    data, results = record["data"], record["results"]
    if results and "encoder" not in results:
        raise KeyError("encoder")
    measured = {r: {m: _measured(found[m], int(data["test_images"])) for m in MEASURES} for r, found in results.items()}
    dimensions = {r: found.get("dimension") for r, found in results.items()}
    return Evaluated(data, record.get("protocol", {}), record.get("environment", {}), measured, dimensions, record)


def _measured(record: dict[str, Any], images: int) -> Measured:
    value, low, high = (float(record[name]) for name in ("value", "low", "high"))
    if not all(map(math.isfinite, (value, low, high))):
        raise ValueError("not finite")
    correct = unpack_bits(record["correct"], images) if record.get("correct") else None
    if correct is not None and not np.isclose(correct.mean(), value, atol=1e-6):
        correct = None  # not the images behind the figure
    return Measured(Estimate(value, low, high), correct)


def _read_json(path: Path, damaged: list[str]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        damaged.append(path.name)
        return {}
    return found


def _read_config(path: Path, damaged: list[str]) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return "", {}
    except (OSError, ValueError):
        damaged.append(path.name)
        return "", {}
    try:
        return text, dict(_flatten(tomllib.loads(text)))
    except tomllib.TOMLDecodeError:
        damaged.append(path.name)
        return text, {}


def _flatten(table: dict[str, Any], group: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{group}{name}.")
        else:
            yield f"{group}{name}", value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""What the sections of the measures are made of, and how a record is read so that a damaged part costs only itself."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from compressl.measures.intervals import Estimate
from compressl.report.reading import BASELINES, Run
from compressl.report.summary import percent

Record = Mapping[str, Any]
ENCODER = "encoder"
DAMAGE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)  # what a record of other shape raises
SHORTER = {"random encoder": "random", "raw pixels": "pixels"}  # at the end of a line
T = TypeVar("T")


@dataclass(frozen=True)
class Member:
    """A run that was evaluated."""

    index: int
    """Of all runs of the page: its color."""
    run: Run
    record: Record
    label: str
    """Short enough for a figure."""
    short: str
    """Short enough for a table."""


@dataclass(frozen=True)
class Group:
    """Runs that were evaluated on the same images, so that they can stand in one figure."""

    number: int
    members: tuple[Member, ...]
    names: str = ""
    """Of the runs, where not all runs of the page are here."""

    def named(self, name: str) -> str:
        """An identifier that is unique in the page."""
        return f"{name}-{self.number}"


@dataclass(frozen=True)
class Shown:
    """One representation with its part of a record."""

    name: str
    label: str
    color: int | None
    """Of the run; None for a baseline."""
    part: Record
    member: Member
    kind: str = ENCODER
    """Its name in the record."""


@dataclass(frozen=True)
class Column:
    name: str
    color: int | None = None
    numbers: bool = True
    hollow: bool = False
    """Drawn as a circle."""


@dataclass(frozen=True)
class Figure:
    title: str
    svg: str
    caption: str
    key: tuple[Column, ...] = ()
    """What colors stand for, where the figure does not say it."""


@dataclass(frozen=True)
class Cell:
    value: str
    small: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table; without cells a heading of those that follow."""

    name: str
    note: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: str
    first: str = ""
    """Above the names of the rows."""
    folded: bool = False
    """To be opened by the reader."""


@dataclass(frozen=True)
class Section:
    key: str
    title: str
    about: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    damaged: bool = False
    """Some of it could not be read."""


Line = tuple[str, str, Callable[[Record], Cell | None] | None]  # name, note, how to read it; None for a heading
NONE = Cell("–")


def at(record: Any, *path: str | int) -> Any:
    """What stands at a place of a record; None where it is missing or the record has another shape.

    >>> at({"a": [1, {"b": 2}]}, "a", 1, "b"), at({"a": 3}, "a", "b") is None
    (2, True)
    """
    for name in path:
        try:
            record = record[name]
        except (LookupError, TypeError):
            return None
    return record


def number(found: Any) -> float | None:
    """A finite number, or None."""
    whole = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    return float(found) if whole else None


def numbers(found: Any) -> list[float]:
    """A list of finite numbers, or nothing."""
    values = [number(value) for value in found] if isinstance(found, list) else []
    return [value for value in values if value is not None] if None not in values else []


def estimate(found: Any) -> Estimate | None:
    """A figure with its interval, or None."""
    value, low, high = (number(at(found, name)) for name in ("value", "low", "high"))
    return None if value is None or low is None or high is None else Estimate(value, low, high)


def items(found: Any) -> list[tuple[str, Any]]:
    """The pairs of a table of the record, or nothing."""
    return list(found.items()) if isinstance(found, dict) else []


def representations(group: Group, *path: str) -> list[Shown]:
    """Those whose parts stand at a place of the records: encoders, then baselines, each one that differs once."""
    own: list[Shown] = []
    baselines: dict[tuple[str, str], list[Shown]] = {}
    for member in group.members:
        for kind, part in items(at(member.record, *path)):
            if not isinstance(part, dict):
                continue
            if kind in BASELINES:
                shown = Shown(kind, SHORTER[kind], None, part, member, kind)
                baselines.setdefault((kind, json.dumps(part, sort_keys=True)), []).append(shown)
            else:
                rest = "" if kind == ENCODER else f", {kind.removeprefix('encoder, ')}"
                own.append(Shown(member.short + rest, member.label + rest, member.index, part, member, kind))
    kinds = [kind for kind, _ in baselines]
    for kind in BASELINES:
        for (other, _), found in baselines.items():
            if other == kind:
                names = ", ".join(shown.member.short for shown in found)
                labels = ", ".join(shown.member.label for shown in found)
                alone = kinds.count(kind) == 1
                name, label = (kind, SHORTER[kind]) if alone else (f"{kind} ({names})", f"{SHORTER[kind]} {labels}")
                own.append(replace(found[0], name=name, label=label))
    return own


def of_runs(group: Group, *path: str) -> list[Shown]:
    """What stands at a place of each run's record."""
    parts = [(member, at(member.record, *path)) for member in group.members]
    return [Shown(m.short, m.label, m.index, part, m) for m, part in parts if isinstance(part, dict)]


def table(
    title: str, shown: Sequence[Shown], lines: Sequence[Line], caption: str, first: str = "", *, folded: bool = False
) -> list[Table]:
    """A row for each figure that any representation has, a column for each representation; nothing without rows."""
    rows: list[Row] = []
    for name, note, read in lines:
        if read is None:
            rows.append(Row(name, note, ()))
            continue
        cells = [attempt(read, each.part) for each in shown]
        if any(cells):
            rows.append(Row(name, note, tuple(cell or NONE for cell in cells)))
    afterwards = [*rows[1:], None][: len(rows)]
    rows = [row for row, after in zip(rows, afterwards, strict=True) if row.cells or (after and after.cells)]
    columns = tuple(Column(each.name, each.color) for each in shown)
    return [Table(title, columns, tuple(rows), caption, first, folded)] if rows else []


def attempt(read: Callable[[Record], T], part: Record) -> T | None:
    try:
        return read(part)
    except DAMAGE:
        return None


def share(*path: str | int) -> Callable[[Record], Cell | None]:
    """A share as a percentage, with its interval if it has one."""

    def read(part: Record) -> Cell | None:
        found = at(part, *path)
        if (e := estimate(found)) is not None:
            return Cell(percent(e.value), between(100 * e.low, 100 * e.high, 1))
        value = number(found)
        return None if value is None else Cell(percent(value))

    return read


def plain(*path: str | int, digits: int = 2, scale: float = 1.0) -> Callable[[Record], Cell | None]:
    """A figure as it is, with its interval if it has one."""

    def read(part: Record) -> Cell | None:
        found = at(part, *path)
        if (e := estimate(found)) is not None:
            return Cell(fixed(scale * e.value, digits), between(scale * e.low, scale * e.high, digits))
        value = number(found)
        return None if value is None else Cell(fixed(scale * value, digits))

    return read


def points(*path: str | int) -> Callable[[Record], Cell | None]:
    """A share as points of a hundred."""
    return plain(*path, digits=1, scale=100.0)


def fixed(value: float, digits: int) -> str:
    """A number with some digits after the point; three significant ones where fine figures would be 0.

    >>> fixed(3.14159, 2), fixed(-0.001234, 2), fixed(-0.04, 1), fixed(1234.5, 1)
    ('3.14', '−0.00123', '0.0', '1,234.5')
    """
    text = f"{value:,.{digits}f}"
    if not text.strip("-0."):
        text = f"{value:.3g}" if value and digits > 1 else text.lstrip("-")
    return text.replace("-", "−")


def between(low: float, high: float, digits: int) -> str:
    """
    >>> between(0.5, 1, 1), between(-0.5, 1, 1)
    ('0.5 – 1.0', '−0.5 to 1.0')
    """
    return f"{fixed(low, digits)} {'to' if low < 0 else '–'} {fixed(high, digits)}"


def section(
    key: str,
    title: str,
    about: str,
    group: Group,
    figures: Sequence[Callable[[Group], list[Figure]]] = (),
    tables: Sequence[Callable[[Group], list[Table]]] = (),
) -> list[Section]:
    """A section of all figures and tables that the records have; none where they have none of them."""
    drawn: list[Figure] = []
    listed: list[Table] = []
    damaged = False
    for draw in figures:
        try:
            drawn += draw(group)
        except DAMAGE:
            damaged = True
    for tabulate in tables:
        try:
            listed += tabulate(group)
        except DAMAGE:
            damaged = True
    if not drawn and not listed and not damaged:
        return []
    if group.names:
        title += f": {group.names}"
    return [Section(group.named(key), title, about, tuple(drawn), tuple(listed), damaged)]

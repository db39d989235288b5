"""What the sections of the measures are made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from compressl.report import charts
from compressl.report.axes import Axis
from compressl.report.measures.cells import DAMAGE, Cell, Record, at, attempt, items
from compressl.report.reading import BASELINES, Run

ENCODER = "encoder"
SHORTER = {"random encoder": "random", "raw pixels": "pixels"}  # at the end of a line


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


def line_figure(
    group: Group,
    name: str,
    title: str,
    drawn: Sequence[charts.Line],
    axes: tuple[Axis, Axis],
    *,
    what: str,
    words: Sequence[str],
    caption: str,
) -> list[Figure]:
    """A figure of lines over one another; none without lines.

    Args:
        what, words: the figure, and each line, for those who do not see it.
    """
    if not drawn:
        return []
    svg = charts.lines(group.named(name), drawn, *axes, alt=f"{what}: {'; '.join(words)}.")
    return [Figure(title, svg, caption)]


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

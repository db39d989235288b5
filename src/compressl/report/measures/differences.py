"""Runs against the first, figure by figure."""

from __future__ import annotations

from compressl.evaluation.differences import Difference, differences
from compressl.report.measures.cells import Cell, between, fixed
from compressl.report.measures.parts import Column, Group, Member, Row, Section, Table, section

BETTER = {1: "more is better", -1: "less is better", 0: "neither is better as such"}


def sections(group: Group) -> list[Section]:
    first, *others = group.members or (None,)
    if first is None or not others:
        return []
    return section(
        "differences",
        "What differs",
        "The runs were measured on the same test images, so each figure is compared image by image. An interval "
        "without 0 is a difference; one in twenty of all intervals misses by chance alone. They cover the choice of "
        "test images (for few labels, of the labelled images), not the chance of another training.",
        group,
        tables=[lambda _, i=i, other=other: _against(first, other, folded=i > 0) for i, other in enumerate(others)],  # type: ignore[misc]
    )


def _against(first: Member, other: Member, *, folded: bool) -> list[Table]:
    same_views = _views(first) == _views(other)
    found = differences(first.record, other.record, same_views=same_views)
    if not found:
        return []
    names = first.short, other.short
    columns = (
        Column("what it says", numbers=False),
        Column("difference"),
        Column(names[0], first.index),
        Column(names[1], other.index),
    )
    rows: list[Row] = []
    for kind in dict.fromkeys((d.unit, d.better) for d in found):
        rows.append(Row(_heading(*kind), "", ()))
        rows += [_row(d, names) for d in found if (d.unit, d.better) == kind]
    left_out = (
        "" if same_views else " They were trained with other views: figures that are taken on views are left out."
    )
    caption = f"{names[0]} less {names[1]}, with 95\u202f% intervals of the paired differences.{left_out}"
    title = f"{first.run.name} against {other.run.name}"
    return [Table(title, columns, tuple(rows), caption, "figure", folded)]


def _heading(unit: str, better: int) -> str:
    """
    >>> _heading("bits", -1), _heading("", 0)
    ('bits, less is better', 'without unit, neither is better as such')
    """
    return f"{unit or 'without unit'}, {BETTER[better]}"


def _row(d: Difference, names: tuple[str, str]) -> Row:
    numbers = (Cell(fixed(value, _digits(d))) for value in (d.first, d.second))
    return Row(d.name, "", (_verdict(d, names), _difference(d), *numbers))


def _difference(d: Difference) -> Cell:
    value = fixed(d.difference.value, _digits(d))
    return Cell(
        f"+{value}" if d.difference.value > 0 else value, between(d.difference.low, d.difference.high, _digits(d))
    )


def _verdict(d: Difference, names: tuple[str, str]) -> Cell:
    words = {
        "better": f"{names[0]} is better",
        "worse": f"{names[1]} is better",
        "more": f"more in {names[0]}",
        "less": f"less in {names[0]}",
    }
    return Cell(words.get(d.verdict, "no difference shown"))


def _digits(d: Difference) -> int:
    return {"points": 1, "bits": 2}.get(d.unit, 3)


def _views(member: Member) -> dict[str, object]:
    """The settings of the views that a run was trained with."""
    return {name: value for name, value in member.run.settings.items() if name.startswith("views.")}

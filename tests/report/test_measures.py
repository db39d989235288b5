"""Sections of the measures: there where their data is, whole where it is not."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from compressl.report.measured import measured, seconds, skipped
from compressl.report.measures.parts import Section, Table
from compressl.report.reading import read_runs

from .conftest import MakeRun
from .records import full_record
from .test_page import ONE_LINE, Reader, check_self_contained, page_of

TOPICS = ["differences-0", "information-0", "robustness-0", "few-labels-0", "geometry-0", "uncertainty-0"]
FULL = full_record(0.8)
WIDEST = 34.0  # points, of six letters


def sections_of(make_run: MakeRun, *records: dict[str, Any]) -> dict[str, Section]:
    runs = [make_run(f"run{i}", lines=ONE_LINE, evaluated=record) for i, record in enumerate(records)]
    return {section.key: section for section in measured(read_runs(runs))}


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are their descriptions: where reading is what may break, drawing costs time alone."""
    from compressl.report import charts

    for name in ("lines", "points", "paths", "heat", "reliability", "dots"):
        monkeypatch.setattr(charts, name, lambda *_, alt, **__: alt)


def table_of(section: Section, title: str) -> Table:
    return next(table for table in section.tables if table.title == title)


def cells(table: Table, row: str) -> list[str]:
    return next([cell.value for cell in each.cells] for each in table.rows if each.name == row and each.cells)


def test_a_full_record_has_every_section(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(n, evaluated=full_record(share)) for n, share in (("a", 0.8), ("b", 0.7))]
    page = page_of(runs, tmp_path)
    check_self_contained(page)
    order = [
        name for name in re.findall(r'<h2 id="([^"]+)"', page) if name in (*TOPICS, "results", "training", "record")
    ]
    assert order == ["results", *TOPICS, "training", "record"]
    reader = Reader(page)
    names = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(names) == len(set(names))
    assert all(len(svg["aria-label"] or "") > 30 for svg in reader.all("svg"))
    assert not re.search(r"(fill|stroke|color): ?#[0-9a-f]", page.partition("</style>")[2])
    assert "paintings has no labels." in page
    assert "Seconds that the measures took" in page
    assert not re.search(r"\bnan\b|None", page.partition("</style>")[2])


@pytest.mark.usefixtures("undrawn")
def test_figures_and_tables_say_what_is_recorded(make_run: MakeRun) -> None:
    found = sections_of(make_run, full_record(0.8), full_record(0.7))
    assert not any(section.damaged for section in found.values())
    robust, geometry = found["robustness-0"], found["geometry-0"]
    assert [figure.title for figure in robust.figures] == ["run0", "run1", "run0 less run1"]
    assert cells(table_of(robust, "Corrupted images"), "clean images") == ["80.0\u202f%", "70.0\u202f%", "35.0\u202f%"]
    assert cells(table_of(robust, "Attacked images"), "no attack") == ["80.0\u202f%", "70.0\u202f%"]
    assert cells(table_of(geometry, "In figures"), "correlation rank") == ["32", "28", "14", "16"]
    slopes = table_of(geometry, "Slopes")
    assert [column.name for column in slopes.columns][1] == "run0, vMF mean"
    bits = table_of(found["information-0"], "In bits")
    assert cells(bits, "superfluous at 4 kept")[-1] == "–"
    assert [figure.title for figure in found["uncertainty-0"].figures][-1] == "Selective accuracy"


@pytest.mark.usefixtures("undrawn")
def test_differences_are_said_in_words(make_run: MakeRun) -> None:
    (table,) = sections_of(make_run, full_record(0.8), full_record(0.7))["differences-0"].tables
    assert cells(table, "linear probe")[0] == "run0 is better"
    assert cells(table, "kept information, lower bound")[0] == "more in run0"
    assert any(row.name == "points, more is better" and not row.cells for row in table.rows)


@pytest.mark.usefixtures("undrawn")
def test_other_images_are_neither_compared_nor_drawn_together(make_run: MakeRun) -> None:
    found = sections_of(make_run, full_record(0.8), full_record(0.7, fingerprint="g"))
    assert not [key for key in found if key.startswith("differences")]
    assert found["information-0"].title == "Information: run0"
    assert found["information-1"].title == "Information: run1"
    assert [figure.title for figure in found["robustness-1"].figures] == ["run1"]


@pytest.mark.usefixtures("undrawn")
def test_other_views_leave_out_what_is_taken_on_views(make_run: MakeRun) -> None:
    runs = [make_run(name, lines=ONE_LINE, evaluated=full_record(s)) for name, s in (("a", 0.8), ("b", 0.7))]
    with runs[1].config.open("a") as file:
        file.write("\n[views]\nmin_scale = 0.5\n")
    (table,) = next(s for s in measured(read_runs(runs)) if s.key == "differences-0").tables
    names = [row.name for row in table.rows]
    assert "linear probe" in names
    assert "cosine of two views" not in names
    assert "trained with other views" in table.caption


@pytest.mark.usefixtures("undrawn")
def test_a_difference_map_needs_the_same_corruptions(make_run: MakeRun) -> None:
    other = full_record(0.7)
    other["measures"]["robustness"]["conditions"]["seed"] = 1
    assert len(sections_of(make_run, FULL, other)["robustness-0"].figures) == 2


def test_accuracy_that_was_not_asked_for(make_run: MakeRun, tmp_path: Path) -> None:
    record = full_record(0.8) | {"results": {}}
    page = page_of([make_run("a", evaluated=record)], tmp_path)
    check_self_contained(page)
    assert "Its accuracy has not been measured." in page
    assert 'id="results"' not in page
    assert 'id="information-0"' in page


@pytest.mark.usefixtures("undrawn")
def test_accuracy_that_some_runs_lack(make_run: MakeRun, tmp_path: Path) -> None:
    record = full_record(0.8) | {"results": {}}
    both = page_of([make_run("b", evaluated=full_record(0.8)), make_run("c", evaluated=record)], tmp_path)
    assert "b: a linear probe" in both
    none = page_of([make_run("d", evaluated=record), make_run("e", evaluated=record)], tmp_path)
    assert "The accuracy of none of the runs has been measured." in none


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("measure", list(FULL["measures"]))
def test_a_missing_measure_costs_only_itself(make_run: MakeRun, measure: str) -> None:
    record = full_record(0.7)
    del record["measures"][measure]
    found = sections_of(make_run, FULL, record)
    assert set(found) == set(TOPICS)
    assert not any(section.damaged for section in found.values())


def places(found: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every table and list of a record, a few levels deep."""
    if not isinstance(found, dict | list) or len(path) > 3:
        return []
    inner = found.items() if isinstance(found, dict) else list(enumerate(found))[:1]
    return [path] * bool(path) + [place for name, part in inner for place in places(part, (*path, name))]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("junk", [None, 3, "x", [3], {"value": "x"}, {"a": {"value": float("nan")}}])
@pytest.mark.parametrize("topic", list(FULL["measures"]))
def test_damage_never_breaks_the_page(make_run: MakeRun, topic: str, junk: object, monkeypatch: Any) -> None:
    """Each part in turn is replaced."""
    from compressl.report.measures import differences

    monkeypatch.setattr(differences, "sections", lambda group: [])  # has tests of its own
    runs = read_runs([make_run(f"run{i}", lines=ONE_LINE, evaluated=FULL) for i in range(1)])
    assert runs[0].evaluation
    for place in places(FULL["measures"][topic]):
        table = part = copy.deepcopy(FULL["measures"][topic])
        for name in place[:-1]:
            table = table[name]
        table[place[-1]] = junk
        runs[0].evaluation.record["measures"] = {topic: part}
        text = json.dumps([[f.svg for f in s.figures] for s in measured(runs)])
        assert "nan" not in text.lower()
        skipped(runs)


def test_skipped_and_seconds_are_told_once(make_run: MakeRun) -> None:
    other = full_record(0.7)
    other["skipped"] = {"transfer": "There are no other images."}
    other["seconds"] = {"accuracy": 12.34}
    runs = read_runs([make_run("a", lines=ONE_LINE, evaluated=FULL), make_run("b", lines=ONE_LINE, evaluated=other)])
    told = skipped(runs)
    assert ("robustness, shift paintings", "paintings has no labels.") in told
    assert ("b: transfer", "There are no other images.") in told
    assert ("a: accuracy of few labels, 100 per class", "Some class has only 60 images.") in told
    assert seconds(runs)[0] == ("accuracy", ["3.2", "12"])


def test_names_beside_points_do_not_cover_each_other() -> None:
    from compressl.measures.intervals import Estimate
    from compressl.report import charts
    from compressl.report.axes import Axis
    from compressl.report.charts import Point

    near = [Point(f"name {i}", i, Estimate(5 + 0.01 * i, 5, 5.1), Estimate(0.8, 0.79, 0.81)) for i in range(4)]
    near.append(Point("far", None, Estimate(1, 1, 1), Estimate(0.2, 0.1, 0.3)))
    svg = charts.points("p", near, Axis("bits"), Axis("right", share=True), alt="points")
    boxes = []  # left, baseline
    for style, x, y in re.findall(r'<text style="([^"]*)"[^>]*?rotate\(0 ([\d.]+) ([\d.]+)\)"[^>]*>name \d', svg):
        share = 1.0 if "end" in style else 0.5 if "middle" in style else 0.0
        boxes.append((float(x) - share * WIDEST, float(y)))
    assert len(boxes) == 4
    for i, (left, line) in enumerate(boxes):
        assert all(abs(left - a) > WIDEST or abs(line - b) > 9 for a, b in boxes[:i])


def test_names_do_not_cover_the_title() -> None:
    from compressl.report import charts
    from compressl.report.axes import Axis

    spots = [(1.0, 0.0), (0.6, 3.0), (0.2, 4.6)]  # to the upper left, where the title stands
    drawn = [
        charts.Path(i, [*spots, (x, 5.0)], "first", f"run {i}\nstep 4", [False] * 4) for i, x in enumerate((0.12, 0.1))
    ]
    svg = charts.paths("p", drawn, Axis("superfluous"), Axis("kept, bits, at least"), alt="paths")
    (title,) = (float(y) for y in re.findall(r'<text [^>]*?rotate\(0 [\d.]+ ([\d.]+)\)"[^>]*>kept', svg))
    names = [float(y) for y in re.findall(r'<text [^>]*?translate\([\d.]+ ([\d.]+)\)"[^>]*>run', svg)]
    assert len(names) == 2
    assert min(names) > title + 9


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_density_and_fine_tuning_is_not_damaged(make_run: MakeRun) -> None:
    record = copy.deepcopy(FULL)
    for part in ("trained_channel", "residual"):
        record["measures"]["information"].pop(part, None)
    record["measures"].pop("fine-tuning", None)
    sections = sections_of(make_run, record)
    assert set(sections) >= {"information-0", "few-labels-0"}
    assert not [key for key, section in sections.items() if section.damaged]

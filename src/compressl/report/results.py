"""Accuracy beside its baselines: one table for each ground on which runs were measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compressl.report import figures
from compressl.report.figures import Bar
from compressl.report.reading import BASELINES, MEASURES, Evaluated, Measured, Run, printable
from compressl.report.summary import percent


@dataclass(frozen=True)
class Row:
    """One representation in the table of results."""

    name: str
    color: int | None
    """Of the run; None for a baseline."""
    label: str
    dimension: int | None
    cells: list[dict[str, str]]


@dataclass(frozen=True)
class Results:
    """The runs that were measured on the same ground, with their baselines."""

    about: str
    protocol: list[tuple[str, str]]
    rows: list[Row]
    figures: list[dict[str, str]]


def results(runs: Sequence[Run]) -> list[Results]:
    """One table for each ground on which runs were measured."""
    grounds: dict[tuple[object, ...], list[int]] = {}
    for i, run in enumerate(runs):
        if run.scored:
            grounds.setdefault(run.scored.ground, []).append(i)
    return [_table(runs, members, number) for number, members in enumerate(grounds.values())]


def _table(runs: Sequence[Run], members: Sequence[int], number: int) -> Results:
    found: list[tuple[str, int | None, int | None, dict[str, Measured]]] = []
    baselines: dict[tuple[object, ...], tuple[str, int | None, dict[str, Measured], list[str]]] = {}
    for i in members:
        evaluation = runs[i].evaluation
        assert evaluation is not None
        found.append((runs[i].name, i, evaluation.dimensions["encoder"], evaluation.results["encoder"]))
        for baseline in (b for b in BASELINES if b in evaluation.results):
            measured, dimension = evaluation.results[baseline], evaluation.dimensions[baseline]
            figures_of = tuple(measured[m].estimate for m in MEASURES)
            entry = baselines.setdefault((baseline, dimension, *figures_of), (baseline, dimension, measured, []))
            entry[3].append(runs[i].name)
    names = [entry[0] for entry in baselines.values()]
    for baseline, dimension, measured, owners in sorted(baselines.values(), key=lambda b: list(BASELINES).index(b[0])):
        name = baseline if names.count(baseline) == 1 else f"{baseline} ({', '.join(owners)})"
        found.append((name, None, dimension, measured))
    first = runs[members[0]].evaluation
    assert first is not None
    rows = [
        Row(name, i, runs[i].label if i is not None else "", dimension, [_cell(measured[m]) for m in MEASURES])
        for name, i, dimension, measured in found
    ]
    chance = first.data.get("chance")
    chance = float(chance) if isinstance(chance, int | float) else None
    drawn = []
    for measure, title in MEASURES.items():
        words = "; ".join(
            f"{name} {percent(m[measure].estimate.value)}, interval {percent(m[measure].estimate.low)} to "
            f"{percent(m[measure].estimate.high)}"
            for name, _, _, m in found
        )
        bars = [Bar(_shortened(name), i, measured[measure].estimate) for name, i, _, measured in found]
        svg = figures.intervals(
            f"results-{number}-{measure}", bars, alt=f"Accuracy by {title}: {words}.", chance=chance
        )
        drawn.append({"title": title, "svg": svg})
    return Results(_about(first, chance), _protocol(first), rows, drawn)


def _cell(measured: Measured) -> dict[str, str]:
    e = measured.estimate
    return {"value": percent(e.value), "interval": f"{100 * e.low:.1f} – {100 * e.high:.1f}"}


def _about(evaluation: Evaluated, chance: float | None) -> str:
    data = evaluation.data
    classes = data.get("classes")
    parts = [f"{data.get('test_images'):,} test images"]
    if isinstance(data.get("train_images"), int):
        parts.append(f"classifiers fitted on {data['train_images']:,} training images")
    if isinstance(classes, list):
        shown = ", ".join(map(printable, classes[:10])) + (", …" if len(classes) > 10 else "")
        parts.append(f"{len(classes)} classes ({shown})")
    if chance is not None:
        parts.append(f"chance {percent(chance)} (always the most frequent class)")
    name = f"{printable(data['name'])}: " if data.get("name") else ""
    return f"{name}{'; '.join(parts)}."


def _protocol(evaluation: Evaluated) -> list[tuple[str, str]]:
    shown = [(MEASURES.get(name, name), str(value)) for name, value in evaluation.protocol.items()]
    if split := evaluation.data.get("split"):
        shown.append(("split", str(split)))
    return shown


def _shortened(name: str, most: int = 40) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"

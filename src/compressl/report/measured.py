"""What the measures of evaluation.json found, section by section."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compressl.report.measures import accuracy, differences, geometry, information, robustness, uncertainty
from compressl.report.measures.cells import Record, at, fixed, items, number
from compressl.report.measures.parts import Group, Member, Section
from compressl.report.reading import Run

TOPICS = (differences, information, robustness, accuracy, geometry, uncertainty)  # in the order of the page


def measured(runs: Sequence[Run]) -> list[Section]:
    """Topic by topic; runs that were tested on other images stand in sections of their own."""
    groups = _groups(runs)
    return [section for topic in TOPICS for group in groups for section in topic.sections(group)]


def skipped(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What was not measured, and why, in the words of the records; whose it is, where not of all runs."""
    evaluated = [run for run in runs if run.evaluation]
    found: dict[tuple[str, str], list[str]] = {}
    for run in evaluated:
        assert run.evaluation is not None
        for part, sentence in _sentences(run.evaluation.record):
            found.setdefault((part, sentence), []).append(run.name)
    return [
        (part if len(names) == len(evaluated) else f"{', '.join(names)}: {part}", sentence)
        for (part, sentence), names in found.items()
    ]


def seconds(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """How long each measure took, for each run."""
    tables = [at(run.evaluation.record, "seconds") if run.evaluation else None for run in runs]
    names = dict.fromkeys(name for table in tables for name, value in items(table) if number(value) is not None)
    times = [(name, [number(at(table, name)) for table in tables]) for name in names]
    return [(name, ["–" if t is None else fixed(t, 0 if t >= 10 else 1) for t in row]) for name, row in times]


def _groups(runs: Sequence[Run]) -> list[Group]:
    grounds: dict[tuple[str, ...], list[Member]] = {}
    several = len(runs) > 1
    for i, run in enumerate(runs):
        if run.evaluation:
            data = run.evaluation.data
            ground = tuple(str(data.get(name)) for name in ("test_fingerprint", "train_images"))
            label, short = (run.label, run.label) if several else ("encoder", run.name)
            grounds.setdefault(ground, []).append(Member(i, run, run.evaluation.record, label, short))
    return [
        Group(n, tuple(members), ", ".join(m.run.name for m in members) if len(grounds) > 1 else "")
        for n, members in enumerate(grounds.values())
    ]


def _sentences(record: Record) -> Iterator[tuple[str, str]]:
    yield from _texts(at(record, "skipped"))
    for name, measure in items(at(record, "measures")):
        for part, sentence in _texts(at(measure, "skipped")):
            yield f"{name}, {part}", sentence
        for representation, found in items(at(measure, "representations")):
            for part, sentence in _texts(at(found, "skipped")):
                yield f"{name}, {representation}: {part}", sentence


def _texts(found: object) -> Iterator[tuple[str, str]]:
    return ((name.replace("_", " "), text) for name, text in items(found) if isinstance(text, str))

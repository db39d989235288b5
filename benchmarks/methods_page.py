"""The tables of docs/methods.md, from the files under benchmarks/methods/; nothing is typed by hand.

python benchmarks/methods_page.py
"""

from __future__ import annotations

import json
import statistics
import sys
import tomllib
from typing import Any

import numpy as np
import objectives
from methods import BASELINE, BUDGETS, DATA, RESULTS, ROOT, comparable, settings
from speed_page import between, section

from compressl.measures.intervals import bootstrap_mean
from compressl.measures.packing import unpack_bits
from compressl.settings.methods import METHODS as SETTINGS
from compressl.settings.methods import describe
from compressl.settings.pretrain import PretrainSettings
from compressl.settings.toml import to_toml

PAGE = ROOT / "docs" / "methods.md"


def render() -> None:
    """The tables between the markers of docs/methods.md."""
    page = PAGE.read_text()
    for data in DATA:
        page = between(page, data, table(data))
    page = between(page, "step time", step_table())
    PAGE.write_text(page)


def table(data: str) -> str:
    about = tomllib.loads(BUDGETS.read_text())[data]["about"]
    records = [json.loads(path.read_text()) for path in sorted((RESULTS / data).glob("*.json"))]
    for r in records:
        if r["settings"] is not None and not same(r["settings"], to_toml(settings(data, r["method"], r["seed"]))):
            sys.exit(f"{data}/{r['method']}-{r['seed']}.json was not measured with the settings of {BUDGETS.name}.")
    rows = []
    for name in [*SETTINGS, BASELINE]:
        runs = sorted((r for r in records if r["method"] == name), key=lambda r: r["seed"])
        if not runs:
            continue
        cells = []
        for measure_name in ("knn", "linear"):
            values = [100 * r[measure_name]["value"] for r in runs]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}")
        label = describe(SETTINGS[name]).partition(")")[0] + ")" if name in SETTINGS else "random weights"
        gap = "" if name == BASELINE else above_random(runs, records)
        rows.append(f"| `{name}` | {label} | {cells[0]} | {gap} | {cells[1]} | {len(runs)} |")
    if not rows:
        return "No figures yet."
    one_record = records[0]
    machine = one_record["environment"]
    processors = " or ".join(sorted({r["environment"]["processor"] for r in records}))
    largest = max(r[m]["high"] - r[m]["low"] for r in records for m in ("knn", "linear")) * 50
    return "\n".join(
        [
            f"{about} Mean and standard deviation over seeds, in percent, on {one_record['test_images']:,} test images "
            f"(the 95 % interval over test images is at most ±{largest:.1f}; that of the difference is paired over "
            "them and covers the seeds that both have). "
            f"Machine: {processors}, one thread, {machine['precision']}; torch {machine['torch']}, "
            f"Python {machine['python']}.",
            "",
            "| method | | kNN | kNN less the random encoder's | linear probe | seeds |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def same(recorded: dict[str, Any], now: str) -> bool:
    """Whether a figure was measured with these settings; an option that did not exist then was at its default."""
    current, defaults = comparable(now), comparable(to_toml(PretrainSettings()))
    return {name: recorded.get(name, defaults.get(name)) for name in {*recorded, *current}} == current


def above_random(runs: list[dict[str, Any]], records: list[dict[str, Any]]) -> str:
    """How much more the runs classify rightly than random encoders of the same seeds, paired over the test images."""
    random = {r["seed"]: r for r in records if r["method"] == BASELINE}

    def right(record: dict[str, Any]) -> Any:
        return unpack_bits(record["knn"]["correct"], record["test_images"]).astype(float)

    gaps = [right(r) - right(random[r["seed"]]) for r in runs if r["seed"] in random]
    if not gaps:
        return ""
    gap = bootstrap_mean(np.mean(gaps, axis=0))
    return f"{100 * gap.value:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"


def step_table() -> str:
    path = ROOT / "benchmarks" / "results" / "objectives.json"
    return section(objectives, json.loads(path.read_text())) if path.exists() else "Not measured yet."


if __name__ == "__main__":
    render()

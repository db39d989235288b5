"""The tables of docs/speed.md, from the records under benchmarks/results/; nothing is typed by hand.

python benchmarks/speed_page.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import gpu
import learning
import scaling
import step
import views
from timing import RESULTS, markdown

PAGE = Path(__file__).parent.parent / "docs" / "speed.md"
SECTIONS: dict[str, ModuleType] = {
    "views": views,
    "step": step,
    "scaling": scaling,
    "learning": learning,
    "learning_trials": learning,
    "gpu": gpu,
}


def render(page: str, results: Path) -> str:
    """The page with the tables of every record that is there between its markers."""
    for name, module in SECTIONS.items():
        path = results / f"{name}.json"
        text = section(module, json.loads(path.read_text())) if path.exists() else "Not measured yet."
        page = between(page, name, text)
    return page


def between(page: str, name: str, text: str) -> str:
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    return re.sub(f"{start}.*?{end}", lambda _: f"{start}\n{text}\n{end}", page, flags=re.DOTALL)


def section(module: ModuleType, record: dict[str, Any]) -> str:
    """How it was measured, and the tables."""
    parts = [about(record)]
    for title, head, rows in module.tables(record):
        parts += [f"**{title}**", markdown(head, rows)]
    return "\n\n".join(parts)


def about(record: dict[str, Any]) -> str:
    machine, load = record["environment"], record["load"][0]
    peers = [f"{name} {version}" for name, version in record["peers"].items() if version]
    versions = [f"Python {machine['python']}", f"torch {machine['torch']}"]
    busy = f", busy with other work (load {load:.1f})" if load > 1.5 * record["processors"] else ""
    return (
        f"`{record['command']}`. Machine: {machine['processor']}, {machine['threads']} "
        f"thread{'s' * (machine['threads'] > 1)} of "
        f"{record['processors']} processors{busy}; {machine['platform']}; "
        f"{', '.join([*versions, *peers])}."
    )


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(), RESULTS))
    if (record := RESULTS / "learning.json").exists():
        learning.draw(json.loads(record.read_text())["runs"], PAGE.with_name("learning.png"))

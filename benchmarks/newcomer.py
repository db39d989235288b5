"""What a newcomer waits for: `make demo` and `make test` on a fresh clone, timed.

    python benchmarks/newcomer.py

Clones this checkout's last commit into a temporary folder, runs both commands there, writes
``benchmarks/newcomer.json`` and the lines between the markers in README.md. Takes several minutes.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from pathlib import Path

import torch

from compressl.devices import environment

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "benchmarks" / "newcomer.json"
LIMIT = 1200  # seconds for one command


def timed(command: list[str], folder: Path) -> tuple[float, str]:
    """Seconds and last line of a command that must succeed."""
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return round(time.monotonic() - began, 1), done.stdout.strip().splitlines()[-1]


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        clone = Path(temporary) / "compressl"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        record: dict[str, object] = {"environment": environment(torch.device("cpu"), "as each command chooses")}
        for name, target in (
            ("install for the demo", ".venv/core.stamp"),
            ("make demo", "demo"),
            ("install for the tests", ".venv/dev.stamp"),
            ("make test", "test"),
        ):
            seconds, last = timed(["make", target], clone)
            record[name] = {"seconds": seconds, "last line": last}
            print(f"{name}: {seconds:.0f} s", flush=True)
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    render(record)


def render(record: dict[str, object]) -> None:
    """The times into README.md."""

    def seconds(name: str) -> str:
        entry = record[name]
        assert isinstance(entry, dict)
        return f"{entry['seconds']:.0f} s"

    machine = record["environment"]
    assert isinstance(machine, dict)
    text = (
        f"From a fresh clone on {machine['processor']}, {machine['threads']} threads, torch {machine['torch']}: "
        f"`make demo` {seconds('make demo')} after {seconds('install for the demo')} of installing, "
        f"`make test` {seconds('make test')} after {seconds('install for the tests')} more "
        "([newcomer.json](benchmarks/newcomer.json), written by `python benchmarks/newcomer.py`)."
    )
    readme = ROOT / "README.md"
    start, end = "<!-- times -->", "<!-- /times -->"
    page = re.sub(f"{start}.*?{end}", f"{start}\n{text}\n{end}", readme.read_text(), flags=re.DOTALL)
    readme.write_text(page)


if __name__ == "__main__":
    main()

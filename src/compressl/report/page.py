"""The page itself: pieces from the run folders, set into one HTML file."""

from __future__ import annotations

import base64
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressl import __version__
from compressl.files import write_atomically
from compressl.report.measured import measured, seconds, skipped
from compressl.report.panels import draw_panels
from compressl.report.reading import Run, printable, read_png, read_runs
from compressl.report.results import results
from compressl.report.summary import STATUS, summarize
from compressl.report.svg import COLORS
from compressl.runs import RunFolder

TEMPLATES = Path(__file__).parent / "templates"
NOT_DIFFERENCES = ("out", "overwrite", "config", "recipe", "allow_data_change")  # how a run was asked for
FILES = {
    "config.toml": "every setting, defaults written out",
    "metrics.jsonl": "what the training measured",
    "encoder.safetensors": "the weights of the encoder",
    "encoder.json": "how to use them: architecture, size, mean and deviation",
    "heads.safetensors": "the heads of the method, for measures that need its density",
    "evaluation.json": "figures, intervals, and which test images were right",
    "environment.json": "versions and processor",
    "run.json": "the state of the run",
    "views.png": "what the encoder saw",
    "neighbors.png": "nearest neighbours",
}


def write_report(runs: Sequence[RunFolder], out: Path, *, title: str | None = None, lead: str | None = None) -> None:
    """Write one self-contained HTML page about one run, or comparing several.

    What a run folder lacks is left out of the page; runs that failed or still go on are shown as such.

    Args:
        runs: run folders, in the order in which they are shown.
        out: the HTML file; replaced as a whole.
        title: above the headline, and of the window. Default: the names of the runs.
        lead: a paragraph under the headline, plain text.

    Raises:
        ResourceError: the page cannot be written.
        ValueError: no run is given.
    """
    if not runs:
        raise ValueError("A report needs at least one run.")
    write_atomically(out, render(read_runs(runs), title=title, lead=lead).encode("utf-8", "replace"))


def render(runs: Sequence[Run], *, title: str | None = None, lead: str | None = None) -> str:
    """The page as text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    summary = summarize(runs)
    return environment.get_template("report.html.j2").render(
        title=title or ", ".join(run.name for run in runs),
        headline=summary.headline,
        findings=summary.findings,
        lead=lead,
        runs=runs,
        several=len(runs) > 1,
        colors=COLORS,
        states=[STATUS.get(run.status or "", "state unknown") for run in runs],
        results=results(runs),
        measured=measured(runs),
        skipped=skipped(runs),
        training=_training(runs),
        panels=draw_panels(runs),
        neighbors=_pictures(runs, "neighbors.png"),
        views=_pictures(runs, "views.png"),
        differences=_differences(runs),
        environments=_environments(runs),
        seconds=seconds(runs),
        commands=_commands(runs),
        files=[_files(run) for run in runs],
        version=__version__,
    )


def _training(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A few numbers about each training."""
    rows = []
    for i, run in enumerate(runs):
        rates, waits = ([value for _, value in run.series(f"time.{key}")] for key in ("images_per_second", "waiting"))
        s = run.settings
        rows.append(
            {
                "index": i,
                "method": s.get("method.name"),
                "encoder": s.get("encoder.name"),
                "epochs": f"{run.epochs:,}" + (f" of {s['epochs']:,}" if isinstance(s.get("epochs"), int) else ""),
                "steps": f"{run.steps:,}",
                "rate": f"{statistics.median(rates):,.0f}" if rates else None,
                "waiting": f"{100 * statistics.fmean(waits):.0f}\u202f%" if waits else None,
            }
        )
    return rows


def _pictures(runs: Sequence[Run], name: str) -> list[dict[str, Any]]:
    found = []
    for i, run in enumerate(runs):
        if content := read_png(run.folder.path / name):
            width = int.from_bytes(content[16:20])
            found.append({"index": i, "name": run.name, "data": base64.b64encode(content).decode(), "width": width})
    return found


def _differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Settings that are not the same in all runs."""
    known = [run.settings for run in runs]
    if len(runs) < 2 or not all(known):
        return []
    names = [name for name in dict.fromkeys(n for s in known for n in s) if name not in NOT_DIFFERENCES]
    shown = [(name, [_setting(s[name]) if name in s else "not set" for s in known]) for name in names]
    return [(name, values) for name, values in shown if len(set(values)) > 1]


def _setting(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _environments(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Where each run was trained, a line for each fact."""
    if not any(run.environment for run in runs):
        return []
    names = dict.fromkeys(name for run in runs for name in run.environment)
    return [(name.replace("_", " "), [str(run.environment.get(name, "–")) for run in runs]) for name in names]


def _commands(runs: Sequence[Run]) -> list[str]:
    lines = []
    for run in runs:
        if run.config:
            config, again = f"{run.name}/config.toml", f"{run.name}-again"
            lines.append(f"compressl pretrain --config {shlex.quote(config)} --out {shlex.quote(again)}")
            if run.evaluation and (data := run.evaluation.data.get("name")):
                lines.append(f"compressl evaluate {shlex.quote(again)} --data {shlex.quote(printable(data))}")
    return lines


def _files(run: Run) -> list[tuple[str, str]]:
    return [(name, what) for name, what in FILES.items() if (run.folder.path / name).is_file()]

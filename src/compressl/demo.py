"""The demonstration: SimCLR against C-SimCLR on digits set into nuisance, measured beside what needs no training.

The last line says what the figures say, whichever method won.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from compressl import verbs
from compressl.errors import CheckpointError
from compressl.evaluation.protocol import Evaluation
from compressl.files import write_atomically
from compressl.measures.intervals import Estimate, bootstrap_mean
from compressl.report import write_report
from compressl.runs import RunFolder
from compressl.settings.demo import DemoSettings
from compressl.settings.evaluate import EvaluateSettings
from compressl.settings.loading import load_pretrain

MEASURES = ("accuracy", "information", "geometry", "uncertainty")  # those of a minute
METHODS = ("simclr", "c-simclr")


def run(settings: DemoSettings) -> Path:
    """Train both, evaluate both, write the report.

    Raises:
        CheckpointError: ``--out`` holds something that is no demo.
    """
    began = time.monotonic()
    console = verbs.console
    _make_room(settings.out)
    results: dict[str, Evaluation] = {}
    for method in METHODS:
        out = settings.out / method
        argv = ["--recipe", f"digits/{method}", "--out", str(out), "--seed", str(settings.seed), "--overwrite"]
        if settings.epochs is not None:
            argv += ["--epochs", str(settings.epochs)]
        verbs.pretrain(*load_pretrain(argv), hint=False)
        evaluation = EvaluateSettings(run=out, data="digits", measures=MEASURES, images=500, seed=settings.seed)
        results[method] = verbs.evaluate(evaluation, quiet=True)
    verbs.print_results({method: result.record for method, result in results.items()})
    page = settings.out / "report.html"
    write_report([RunFolder(settings.out / method) for method in METHODS], page)
    console.print(f"{time.monotonic() - began:.0f} s. The report: {page}", markup=False)
    console.print(verdict(results["simclr"], results["c-simclr"]), style="bold", markup=False)
    return page


def _make_room(out: Path) -> None:
    """Take over the folder: new, empty, or that of an earlier demo, as its marker says."""
    marker = out / "demo.json"
    if out.exists() and not marker.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} holds something that no demo wrote.", "Give another --out; nothing was touched.")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(marker, json.dumps({"methods": METHODS}))


@dataclass(frozen=True)
class Comparison:
    """Difference of two accuracies on the same test images."""

    better: str
    worse: str
    difference: Estimate

    @property
    def is_clear(self) -> bool:
        return self.difference.low > 0


def compare(results: dict[str, Evaluation], first: str, second: str, baseline: str = "encoder") -> Comparison:
    """The linear probe on ``first``'s encoder against ``second``'s, or against one of the baselines."""
    a, b = results[first].correct("encoder", "linear"), results[second].correct(baseline, "linear")
    other = second if baseline == "encoder" else baseline
    better, worse, sign = (first, other, 1) if a.mean() >= b.mean() else (other, first, -1)
    return Comparison(better, worse, bootstrap_mean(sign * (a.astype(float) - b.astype(float))))


def verdict(simclr: Evaluation, csimclr: Evaluation) -> str:
    """What was learnt, in two sentences."""
    results = {"SimCLR": simclr, "C-SimCLR": csimclr}
    learnt = []
    for name in results:
        beaten = [
            baseline
            for baseline in ("random encoder", "raw pixels")
            if (c := compare(results, name, name, baseline)).better == name and c.is_clear
        ]
        learnt.append(f"{name} beats {' and '.join(beaten) if beaten else 'neither baseline'}")
    between = compare(results, "C-SimCLR", "SimCLR")
    gap = between.difference
    points = f"{gap.value * 100:.1f} points [{gap.low * 100:.1f}, {gap.high * 100:.1f}]"
    if between.is_clear:
        last = f"Between these two trainings, {between.better} is better than {between.worse} by {points}."
    elif gap.value == 0:
        last = "Both are right on equally many test images."
    else:
        last = (
            f"{between.better} is ahead of {between.worse} by {points}: with so few test images, that is no difference."
        )
    return f"Linear probe: {'; '.join(learnt)}. {last}"

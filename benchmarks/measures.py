"""SimCLR against C-SimCLR under one budget, by every measure: the figures of docs/measures.md.

    python benchmarks/measures.py train --jobs 2       # CIFAR-10, 10,000 images, quarter-width ResNet-18, 30 epochs
    python benchmarks/measures.py evaluate --jobs 2    # every measure but fine-tuning
    python benchmarks/measures.py time                 # 10,000 test images, features cached, all processors
    python benchmarks/measures.py render               # into docs/measures.md

``train`` and ``evaluate`` go on where they were stopped. The runs lie under ``--runs`` (runs/measures by default); what
is kept of them is ``benchmarks/results/measures.json``: each run's figures without the values of single images, and the
paired differences between methods of the same seed, which need those.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from compressl.runs import RunFolder

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "measures.json"
PAGE = ROOT / "docs" / "measures.md"
METHODS = ("simclr", "c-simclr")
SEEDS = (0, 1)
IMAGES, VIEWS = 2000, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("train", "evaluate", "time", "render"))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "measures")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--human", type=Path, help="cifar10h.npz. Default: beside the data in $COMPRESSL_DATA")
    options = parser.parse_args()
    pairs = [(method, int(seed)) for seed in options.seeds.split(",") for method in METHODS]
    if options.verb == "render":
        from measures_page import render

        render(json.loads(RESULT.read_text()))
        return
    if options.verb == "time":
        time_measures(options.runs, pairs[0])
        return
    with ThreadPoolExecutor(options.jobs) as pool:
        if options.verb == "train":
            done = list(pool.map(lambda pair: train(options.runs, *pair), pairs))
        else:
            done = list(pool.map(lambda pair: evaluate(options.runs, *pair, human(options.human)), pairs))
    if options.verb == "evaluate":
        collect(options.runs, pairs)
    sys.exit(not all(done))


def folder(runs: Path, method: str, seed: int) -> RunFolder:
    return RunFolder(runs / f"{method}-{seed}")


def train(runs: Path, method: str, seed: int) -> bool:
    """One run with a checkpoint every three epochs, all of them kept, for the information plane."""
    run = folder(runs, method, seed)
    if run.status() == "finished":
        return True
    words = f"--recipe cifar10/{method}-cpu --seed {seed} --threads 1 --keep 20 --save-every 3 --no-tensorboard"
    return call("pretrain", *words.split(), "--out", str(run.path))


def evaluate(runs: Path, method: str, seed: int, soft_labels: Path | None) -> bool:
    run = folder(runs, method, seed)
    words = ["--data", "cifar10", "--images", str(IMAGES), "--views", str(VIEWS), "--transfer", "digits=digits"]
    if method != METHODS[0]:
        words += ["--baseline", str(folder(runs, METHODS[0], seed).evaluation)]
    if soft_labels is not None:
        words += ["--soft-labels", str(soft_labels)]
    if run.evaluation.exists() and run.evaluation.stat().st_mtime > (run.path / "encoder.json").stat().st_mtime:
        return True
    return call("evaluate", str(run.path), *words)


def time_measures(runs: Path, pair: tuple[str, int]) -> None:
    """The second of two evaluations of all 10,000 test images by every measure that features can be cached for.

    A ``time.json`` beside the runs is the first of them.
    """
    out = runs / "time.json"
    words = ["--data", "cifar10", "--images", "10000", "--views", str(VIEWS), "--out", str(out)]
    words += ["--measures", "accuracy", "information", "geometry", "lipschitz", "uncertainty"]
    os.environ["OMP_NUM_THREADS"] = str(os.cpu_count())
    for _ in range(1 if out.exists() else 2):
        if not call("evaluate", str(folder(runs, *pair).path), *words):
            sys.exit(1)
    record, kept = json.loads(out.read_text()), json.loads(RESULT.read_text())
    kept["time"] = {
        "command": "python benchmarks/measures.py time",
        "images": record["data"]["test_images"],
        "seconds": record["seconds"],
        "environment": record["environment"],
    }
    RESULT.write_text(json.dumps(kept, indent=1) + "\n")


def call(verb: str, *words: str) -> bool:
    print(f"compressl {verb} {' '.join(words)}", flush=True)
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    return subprocess.run([sys.executable, "-m", "compressl", verb, *words], env=environment).returncode == 0


def human(given: Path | None) -> Path | None:
    """CIFAR-10H, where it lies beside the data."""
    for root in (given, Path(os.environ.get("COMPRESSL_DATA", "../shared/data")) / "cifar10h" / "cifar10h.npz"):
        if root is not None and root.exists():
            return root
    return None


def collect(runs: Path, pairs: list[tuple[str, int]]) -> None:
    """What is kept: figures without single images, and paired differences."""
    from compressl.evaluation.differences import differences

    records = {
        pair: json.loads(folder(runs, *pair).evaluation.read_text())
        for pair in pairs
        if folder(runs, *pair).evaluation.exists()
    }
    before = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    kept: dict[str, Any] = {k: v for k, v in before.items() if k == "time"} | {
        "command": "python benchmarks/measures.py train; python benchmarks/measures.py evaluate",
        "runs": {f"{method}-{seed}": without_images(record) for (method, seed), record in records.items()},
        "differences": {},
    }
    for seed in sorted({seed for _, seed in records}):
        first, second = ((method, seed) for method in reversed(METHODS))
        if first in records and second in records:
            found = differences(records[first], records[second])
            kept["differences"][f"{METHODS[1]} less {METHODS[0]}, seed {seed}"] = [d.as_dict() for d in found]
    RESULT.write_text(json.dumps(kept, indent=1).replace(str(runs), "runs/measures") + "\n")  # no path of a machine


def without_images(value: Any) -> Any:
    """A record without the packed values of single images."""
    if isinstance(value, dict):
        return {k: without_images(v) for k, v in value.items() if not (isinstance(v, str) and len(v) > 500)}
    return [without_images(v) for v in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()

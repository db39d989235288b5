"""Figures for the documentation, from runs to files to a page; nothing is typed by hand.

    python benchmarks/results.py collect cifar10-cpu runs/cifar10-simclr runs/cifar10-c-simclr
    python benchmarks/results.py render

``collect`` takes evaluated runs of one experiment into ``benchmarks/results/<name>.json``: configuration, environment,
course of the training and evaluation. ``render`` writes ``docs/results.md`` from all of these files.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from compressl.measures.intervals import bootstrap_mean
from compressl.measures.packing import unpack_bits
from compressl.runs import RunFolder

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results.md"
SHORT = {"data.path": "data", "method.name": "method", "encoder.name": "encoder", "optimizer.name": "optimizer"}


def collect(name: str, folders: list[str]) -> None:
    """Runs of one experiment into one file."""
    runs = {}
    for folder in folders:
        run = RunFolder(Path(folder))
        config = tomllib.loads(run.config.read_text())
        lines = [line for line in run.read_metrics() if "loss" in line]
        seconds, before = 0.0, 0
        for line in lines:
            seconds += (line["step"] - before) * config["batch_size"] / line["time"]["images_per_second"]
            before = line["step"]
        runs[run.path.name] = {
            "command": command(config, run),
            "config": config,
            "environment": json.loads(run.environment.read_text()),
            "training": {
                "steps": lines[-1]["step"],
                "seconds": round(seconds, 1),
                "images_per_second": round(lines[-1]["step"] * config["batch_size"] / seconds, 1),
                "last": {n: v for n, v in lines[-1].items() if n != "time"},
            },
            "evaluation": json.loads(run.evaluation.read_text()),
        }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(runs, indent=1) + "\n")


def command(config: dict[str, Any], run: RunFolder) -> str:
    """The command line of a run: its recipe and what was given beside it (config.toml says which values were)."""
    words = ["compressl pretrain"]
    group = ""
    for line in run.config.read_text().splitlines():
        if line.startswith("["):
            group = line.strip("[]") + "."
        elif line.endswith("  # flag") and not line.removeprefix("# ").startswith(("out ", "overwrite ")):
            key, _, value = line.removesuffix("  # flag").removeprefix("# ").partition(" = ")
            path = f"{group}{key}"
            flag = {
                "data.path": "data",
                "method.name": "method",
                "encoder.name": "encoder",
                "optimizer.name": "optimizer",
            }
            words.append(f"--{flag.get(path, path).replace('_', '-')} {value.strip(chr(34))}")
    return " ".join([*words, f"--out runs/{run.path.name}"])


def render() -> None:
    """All files into one page."""
    text = [
        "# Results",
        "",
        "Written by `python benchmarks/results.py render` from `benchmarks/results/*.json`; each file holds the",
        "whole configuration, environment and evaluation of its runs. Intervals are 95 %, bootstrapped over test",
        "images: they cover the choice of test images, not the choice of seed.",
        "",
    ]
    for path in sorted(RESULTS.glob("*.json")):
        text += section(path.stem, json.loads(path.read_text()))
    PAGE.write_text("\n".join(text).rstrip() + "\n")


def section(name: str, runs: dict[str, Any]) -> list[str]:
    first = next(iter(runs.values()))
    data, environment = first["evaluation"]["data"], first["environment"]
    config = first["config"]
    limit, path = config["data"].get("limit"), config["data"]["path"]
    images = f"{limit:,} images drawn from {path}" if limit else path
    text = [
        f"## {name}",
        "",
        f"{config['encoder']['name']} of width {config['encoder']['width']:g}, "
        f"{first['evaluation']['encoder']['size']} px, trained on {images} for {config['epochs']} epochs "
        f"at batch {config['batch_size']}, seed {config['seed']}. Classifiers: {data['train_images']:,} training and "
        f"{data['test_images']:,} test images ({data['split']}); chance {data['chance']:.1%}.",
        "",
        f"Machine: {environment['processor']}, {environment['threads']} thread(s), {environment['device']}, "
        f"{environment['precision']}; torch {environment['torch']}, Python {environment['python']}.",
        "",
        "| representation | dimension | kNN | linear probe | training |",
        "|---|---|---|---|---|",
    ]
    baselines = {name: r for name, r in first["evaluation"]["results"].items() if name != "encoder"}
    rows = [
        *((run, record["evaluation"]["results"]["encoder"]) for run, record in runs.items()),
        *baselines.items(),
    ]
    for name, result in rows:
        figures = [f"{r['value']:.1%} [{r['low']:.1%}, {r['high']:.1%}]" for r in (result["knn"], result["linear"])]
        training = runs[name]["training"] if name in runs else None
        cost = f"{training['seconds'] / 60:.0f} min, {training['images_per_second']:,.0f} images/s" if training else ""
        text.append(f"| {name} | {result['dimension']} | {figures[0]} | {figures[1]} | {cost} |")
    text.append("")
    text += differences(runs)
    protocol = first["evaluation"]["protocol"]
    text += [f"kNN: {protocol['knn']}. Linear probe: {protocol['linear']}. View: {protocol['view']}.", "", "```sh"]
    for run, record in runs.items():
        settings = record["evaluation"]
        text += [record["command"], f"compressl evaluate runs/{run} --data {settings['data']['name']}"]
    return [*text, "```", ""]


def differences(runs: dict[str, Any]) -> list[str]:
    """Paired differences between the first run and the others, on the same test images."""
    names = list(runs)
    text = []
    for other in names[1:]:
        a, b = (runs[name]["evaluation"] for name in (other, names[0]))
        if a["data"]["test_fingerprint"] != b["data"]["test_fingerprint"]:
            continue
        count, parts = a["data"]["test_images"], []
        for measure in ("knn", "linear"):
            right = [unpack_bits(e["results"]["encoder"][measure]["correct"], count).astype(float) for e in (a, b)]
            gap = bootstrap_mean(right[0] - right[1])
            parts.append(f"{measure} {gap.value * 100:+.1f} points [{gap.low * 100:+.1f}, {gap.high * 100:+.1f}]")
        text += [f"{other} less {names[0]}, paired over test images: {'; '.join(parts)}.", ""]
    return text


def main() -> None:
    match sys.argv[1:]:
        case ["collect", name, *folders] if folders:
            collect(name, folders)
        case ["render"]:
            render()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()

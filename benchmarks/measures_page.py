"""The figures of docs/measures.md, from benchmarks/results/measures.json; nothing is typed by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "measures.md"
ROWS: tuple[tuple[str, str, float, str], ...] = (  # label, path below a run, factor, unit
    ("kNN", "results/{r}/knn", 100, "%"),
    ("linear probe", "results/{r}/linear", 100, "%"),
    ("1 label per class", "results/{r}/few_labels/1", 100, "%"),
    ("10 labels per class", "results/{r}/few_labels/10", 100, "%"),
    ("1 % of the labels", "results/{r}/few_labels/1 %", 100, "%"),
    ("corrupted images", "measures/robustness/results/{r}/corrupted", 100, "%"),
    ("lost to corruption", "measures/robustness/results/{r}/gap", 100, "points"),
    ("kept information, lower bound", "measures/information/representations/{r}/kept/lower", 1, "bits"),
    ("kept information, upper bound", "measures/information/representations/{r}/kept/upper", 1, "bits"),
    ("superfluous information, lower bound", "measures/information/representations/{r}/superfluous/lower", 1, "bits"),
    ("superfluous information, upper bound", "measures/information/representations/{r}/superfluous/upper", 1, "bits"),
    ("residual information above its floor", "measures/information/residual/excess_bits", 1, "bits"),
    ("invariance to views", "measures/geometry/results/{r}/invariance/invariance", 1, ""),
    ("RankMe", "measures/geometry/results/{r}/dimension/rankme", 1, ""),
    ("instance probe", "measures/geometry/results/{r}/instances/linear/accuracy", 100, "%"),
    ("slope between two views, mean", "measures/lipschitz/results/{r}/pairs/views/slope/mean", 1, ""),
    ("slope between two views, largest", "measures/lipschitz/results/{r}/pairs/views/slope/max", 1, ""),
    ("local slope, mean", "measures/lipschitz/results/{r}/local/slope/mean", 1, ""),
    ("local slope, largest", "measures/lipschitz/results/{r}/local/slope/max", 1, ""),
    ("calibration error of the probe", "measures/uncertainty/results/{r}/calibration/before/ece", 100, "points"),
    ("AUROC of entropy for errors", "measures/uncertainty/results/{r}/errors/entropy_bits/auroc", 1, ""),
    ("KL to people's votes", "measures/uncertainty/results/{r}/human/before/kl_bits", 1, "bits"),
)
ATTACKS = ("linf", "l2")


def render(record: dict[str, Any]) -> None:
    """Put the tables between the markers of the page."""
    text = "\n".join([about(record), "", table(record), "", *differences(record), "", times(record)])
    page = PAGE.read_text()
    page = re.sub(
        "<!-- figures -->.*?<!-- /figures -->",
        lambda _: f"<!-- figures -->\n{text}\n<!-- /figures -->",
        page,
        flags=re.DOTALL,
    )
    PAGE.write_text(page)


def about(record: dict[str, Any]) -> str:
    first = next(iter(record["runs"].values()))
    data, machine, info = first["data"], first["environment"], first["measures"]["information"]
    seeds = sorted({name.rpartition("-")[2] for name in record["runs"]})
    return (
        "CIFAR-10, recipes `cifar10/simclr-cpu` and `cifar10/c-simclr-cpu`: 10,000 images without labels, ResNet-18 of "
        f"quarter width, 30 epochs, seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}. Classifiers are fitted on "
        f"{data['train_images']:,} training images and tested on {data['test_images']:,}; views and corruptions are of "
        f"{info['images']:,} test images. Channel: {info['channel']}, kappa {info['kappa']:.1f}. Machine: "
        f"{machine['processor']}, {machine['precision']}; torch {machine['torch']}, Python {machine['python']}. "
        f"Commands: `{record['command']}`."
    )


def table(record: dict[str, Any]) -> str:
    runs = record["runs"]
    first = next(iter(runs.values()))
    columns = [(name, run, "encoder") for name, run in runs.items()] + [("random weights", first, "random encoder")]
    lines = ["| | " + " | ".join(name for name, _, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for label, path, factor, unit in [*ROWS, *attack_rows(first)]:
        cells = [
            cell(at(run, path.format(r=name)), factor) if name == "encoder" or "{r}" in path else ""
            for _, run, name in columns
        ]
        if any(cells):
            lines.append(f"| {label}{f', {unit}' if unit else ''} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def attack_rows(run: dict[str, Any]) -> list[tuple[str, str, float, str]]:
    found = []
    for norm in ATTACKS:
        entries = at(run, f"measures/robustness/attacks/{norm}")
        for i, entry in enumerate(entries or []):
            if entry["epsilon"]:
                size = f"{entry['epsilon'] * 255:g}/255" if norm == "linf" else f"{entry['epsilon']:g}"
                path = f"measures/robustness/attacks/{norm}/{i}/accuracy"  # of the encoder alone
                found.append((f"attacked, {norm} {size}", path, 100, "%"))
    return found


def cell(value: Any, factor: float) -> str:
    if isinstance(value, dict) and "value" in value:
        digits = 1 if factor == 100 else 2 if abs(value["value"]) > 0.2 else 4
        low, high = (f"{factor * value[end]:.{digits}f}" for end in ("low", "high"))
        return f"{factor * value['value']:.{digits}f} [{low}, {high}]"
    return f"{factor * value:.{2 if abs(value) > 0.2 else 4}f}" if isinstance(value, int | float) else ""


def at(record: Any, path: str) -> Any:
    for name in path.split("/") if path else []:
        if isinstance(record, list) and name.isdigit() and int(name) < len(record):
            record = record[int(name)]
        elif isinstance(record, dict) and name in record:
            record = record[name]
        else:
            return None
    return record


def differences(record: dict[str, Any]) -> list[str]:
    """Paired differences, a column for each seed."""
    found = record["differences"]
    names = list(dict.fromkeys(d["name"] for each in found.values() for d in each))
    lines = [
        "Paired differences, C-SimCLR less SimCLR (same images, same draws; 95 % over images, or over draws of labels):"
    ]
    lines += ["", "| | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for name in names:
        cells = []
        for each in found.values():
            d = next((d for d in each if d["name"] == name), None)
            cells.append("" if d is None else difference(d))
        unit = next(d["unit"] for each in found.values() for d in each if d["name"] == name)
        lines.append(f"| {name}{f', {unit}' if unit else ''} | " + " | ".join(cells) + " |")
    return lines


def difference(d: dict[str, Any]) -> str:
    e = d["difference"]
    digits = {"points": 1, "bits": 3}.get(d["unit"], 4)
    return f"{e['value']:+.{digits}f} [{e['low']:+.{digits}f}, {e['high']:+.{digits}f}] {d['verdict']}"


def times(record: dict[str, Any]) -> str:
    rows = record.get("time")
    if not rows:
        return ""
    machine = rows["environment"]
    seconds = rows["seconds"]
    listing = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    return (
        f"With features cached, {rows['images']:,} test images, {machine['threads']} threads: {listing}; "
        f"{sum(seconds.values()):.0f} s together (`{rows['command']}`)."
    )

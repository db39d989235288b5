"""All that needs a CUDA device, in one go: right, exact, fast, and what a few minutes of training reach.

    python benchmarks/gpu.py --data cifar10                   # a folder of Parquet shards; less than nine minutes
    python benchmarks/gpu.py --data cifar10 --parts learned   # all of them for what the recipe for speed learns

Each part stands for itself: one that fails says why, and the next begins. What is left of ``--budget-s`` at the end is
spent on a training, whose encoder is judged by kNN on training images that it never saw.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import learning
import numpy as np
import step
import torch
import views
from gpu_parts import COMPILED, PARTS, Ground, device_name
from timing import RESULTS, Table, random_images, show, write

from compressl.devices import environment, resolve_device
from compressl.errors import first_line


def attempt(part: Callable[[Ground], dict[str, Any]], ground: Ground) -> dict[str, Any]:
    """A part's record, or the sentence of what went wrong."""
    began = time.monotonic()
    try:
        found = part(ground)
    except Exception as error:  # the parts after it may still work, and the machine is there only now
        found = {"error": f"{type(error).__name__}: {first_line(error)}"}
    found["took_s"] = round(time.monotonic() - began, 1)
    print(f"{part.__name__}: {found.get('error', 'done')} ({found['took_s']} s)", flush=True)
    return found


def earlier(path: Path, device: torch.device) -> dict[str, Any]:
    """The parts that were measured on this device before."""
    record = json.loads(path.read_text()) if path.exists() else {"environment": {"processor": None}}
    own = environment(device, "bf16")["processor"]
    return dict(record["parts"]) if record["environment"]["processor"] == own else {}


def tables(record: dict[str, Any]) -> list[Table]:
    parts = record["parts"]
    rows = [[name, sentence] for name, part in parts.items() for name, sentence in sentences(name, part)]
    found: list[Table] = [("Everything on one device", ["what", "figure"], rows)]
    if "rows" in parts.get("speed", {}):
        found.append(step.table(record["task"], parts["speed"]["rows"]))
    cases = {name: case for name, case in parts.get("augmentation", {}).items() if isinstance(case, dict)}
    return found + views.tables({"devices": {record["environment"]["device"]: cases}, "peers": record["peers"]})


def sentences(name: str, part: dict[str, Any]) -> list[tuple[str, str]]:
    """What a part found, in words."""
    if "error" in part:
        return [(name, part["error"])]
    if name == "correctness":
        agreement = f"loss {part['relative_error']:.1e} off, gradient's cosine {part['gradient_cosine']:.4f}"
        return [("bf16 against float32", f"{agreement}, length {part['gradient_length']:.3f}")]
    if name == "resume":
        labels = {"resumed_is_the_same": "resumed weights", "repeat_is_the_same": "weights of a second run"}
        return [(label, "the same to the bit" if part[key] else "differ") for key, label in labels.items()]
    if name == "speed":
        peak, used, memory = part["peak_flops_assumed"], part["utilisation"], part["memory"]
        known = "no peak is known for this device" if peak is None else f"{used:.1%} of {peak / 1e12:.0f} TFLOP/s"
        return [
            ("share of the bare step", f"{part['share_of_bare']:.1%}"),
            ("model FLOP utilisation", f"{known}; {part['flops_per_image'] / 1e9:.2f} GFLOP an image"),
            ("peak memory of all that trained", "not measured" if memory is None else f"{memory / 1e9:.2f} GB"),
        ]
    if name in ("fastest", "large"):
        rate = next(iter(part["rows"].values()))["per_second"]
        label = {"fastest": "compiled, with graphs, not deterministic", "large": "ResNet-50, 224 px"}[name]
        share = f"{part['share_of_bare']:.1%} of the bare step, batch {part['batch_size']}"
        return [(label, f"{rate:,.0f} images/s, {share}")]
    if name == "compilation":
        rates = {way: f"; bare, {rate:,.0f} images/s" for way, rate in part.get("images_per_second", {}).items()}
        said = {"eager": "as it is"} | {way: part[way] for way in COMPILED}
        return [(way, sentence + rates.get(way, "")) for way, sentence in said.items()]
    if name == "learned":
        last = part["curve"][-1]
        rows = [(f"kNN after {part['epochs']} epochs", f"{last['knn']:.1%} after {last['seconds']:.0f} s")]
        for level in learning.LEVELS[-2:]:
            seconds = learning.soonest(part["curve"], level)
            rows.append((f"time to {level:.0%} kNN", "not reached" if seconds is None else f"{seconds:.0f} s"))
        return rows
    return []


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="a folder of Parquet shards, or whatever pretrain takes")
    parser.add_argument("--budget-s", type=float, default=520.0)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--parts", default=",".join(PARTS), help="only these; others that the record has of this device stay in it"
    )
    given = parser.parse_args()
    given.parts = given.parts.split(",")
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    given.width, given.steps, given.threads, given.workers = 1.0, 30, torch.get_num_threads(), 8
    given.clock = "wall"
    if given.tiny:
        given.width, given.batch_size, given.steps, given.repeats, given.threads, given.workers = 0.125, 8, 1, 1, 1, 0
    return given


def main() -> None:
    began, given = time.monotonic(), arguments()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        print("There is no CUDA device here: torch.cuda.is_available() is False.")
        sys.exit(2)
    torch.set_num_threads(given.threads)
    device = resolve_device(given.device)
    with tempfile.TemporaryDirectory() as name:
        ground = Ground(given.data, Path(name), device, given, began + given.budget_s)
        if given.tiny:
            given.data = str(random_images(Path(name) / "images.npy", 80, 16))
            np.save(Path(name) / "images.labels.npy", np.arange(80) % 2)
            ground = replace(ground, data=given.data)
        parts = {name: attempt(PARTS[name], ground) for name in given.parts}
    parts = {name: part for name, part in (earlier(given.out, device) | parts).items() if name in PARTS}
    task = f"SimCLR, ResNet-18 of width {given.width:g}, small stem, batch {given.batch_size}, {device_name(device)}"
    content = {"task": task, "parts": parts, "seconds": round(time.monotonic() - began, 1)}
    record = write(given.out, device, ground.precision, given, **content)
    show(record, tables(record), given.out)


if __name__ == "__main__":
    main()

"""How cost grows with the batch, the image, the number of images and the number of processes.

    python benchmarks/scaling.py

Steps of a whole training at several sizes take turns in one process. Stores of up to ten million images are sparse
files, opened by ``pack`` as any store that was made before, each in a process of its own. Processes are ``torchrun``'s,
with one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import CLOCKS, PausedTraining, Table, alternate, arguments, exponent, random_images, show, simclr, write

from compressl.data import ArraySource, batches, pack
from compressl.data import cache as disk
from compressl.devices import resolve_device, resolve_precision
from compressl.settings.encoder import EncoderSettings
from compressl.settings.views import ViewsSettings

ENCODER = EncoderSettings(width=0.25, stem="small")
BATCHES, SIDES, COUNTS, PROCESSES = (32, 64, 128, 256), (32, 48, 64, 96), (10**4, 10**5, 10**6, 10**7), (1, 2)
SIDE, BATCH = 32, 256  # of the large stores


def steps(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step at every batch size (32 px) and at every side (batch 32)."""
    sizes = {f"batch {n}": (n, 16 if given.tiny else 32) for n in given.batches}
    sizes |= {f"side {side}": (given.batches[0], side) for side in given.sides}
    trainings = {}
    for name, (batch, side) in sizes.items():
        data = random_images(folder / f"{side}-{batch}.npy", 4 * batch, side)
        settings = simclr(data, folder / name, batch_size=batch, encoder=ENCODER, views=ViewsSettings(size=side))
        trainings[name] = PausedTraining(settings)
    seconds = alternate(
        trainings, given.steps, given.repeats, resolve_device("auto"), given.budget_s, CLOCKS[given.clock]
    )
    for training in trainings.values():
        training.close()
    found = {name: statistics.median(runs) / given.steps for name, runs in seconds.items()}
    return {
        "batch": {"x": list(given.batches), "seconds": [found[f"batch {n}"] for n in given.batches]},
        "side": {"x": list(given.sides), "seconds": [found[f"side {s}"] for s in given.sides]},
    }


def stores(folder: Path, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Start of the first and of a later epoch, and memory, for stores of several sizes."""
    found = []
    for count in given.counts:
        cache = folder / f"store-{count}"
        write_sparse(cache, count)
        command = [sys.executable, __file__, "--store", str(cache)]
        runs = [json.loads(subprocess.check_output(command)) for _ in range(given.repeats)]
        found.append({"images": count} | {name: statistics.median(run[name] for run in runs) for name in runs[0]})
        shutil.rmtree(cache)
    return found


def write_sparse(cache: Path, count: int) -> None:
    """A store as ``pack`` leaves it, of images that are all zero and take no room on the disk."""
    cache.mkdir()
    np.lib.format.open_memmap(cache / "images.npy", "w+", np.uint8, (count, SIDE, SIDE, 3)).flush()
    source = sparse_source(cache)
    store = disk.folder(cache, source.name, source.fingerprint(), SIDE + 16)
    store.mkdir()
    os.link(cache / "images.npy", store / "images.npy")
    np.save(store / "geometry.npy", np.full((count, 2), SIDE, np.int32))
    about = {
        "version": disk.VERSION,
        "images_bytes": (store / "images.npy").stat().st_size,
        "images_sampled_sha256": disk.sampled_hash(store / "images.npy"),
        "geometry_sha256": disk.file_hash(store / "geometry.npy"),
        "unreadable": [],
    }
    (store / "store.json").write_text(json.dumps(about))


def sparse_source(cache: Path) -> ArraySource:
    return ArraySource(np.load(cache / "images.npy", mmap_mode="r"), name="sparse")


def start(cache: Path) -> dict[str, float]:
    """What a store costs before the first step, in a process that has done nothing else."""
    before, clock = peak_memory(), time.perf_counter()
    packed = pack(sparse_source(cache), view_size=SIDE, cache=cache)
    opened = time.perf_counter()
    if packed.note or not isinstance(packed.images, np.memmap):
        raise RuntimeError(f"the store was not used: {packed.note}")
    later = len(packed) // BATCH  # the first step of the second epoch
    steps = batches(packed, batch_size=BATCH, seed=0, start_step=0, total_steps=later + 1, device="cpu")
    with steps:
        next(steps)
    first = time.perf_counter()
    with batches(packed, batch_size=BATCH, seed=0, start_step=later, total_steps=later + 1, device="cpu") as steps:
        next(steps)
    done = time.perf_counter()
    memory = peak_memory() - before
    return {"open": opened - clock, "first_batch": first - opened, "later_epoch": done - first, "memory": memory}


def peak_memory() -> int:
    """Bytes of this process that were resident at most; Linux's ``getrusage`` would count its parent's too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def processes(folder: Path, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Images a second of one batch shared by several processes, as the runs themselves log it; in turn.

    And of as many processes at the same time that know nothing of one another, each with its share of the batch: what
    the machine has for them.
    """
    batch, images = (8, 64) if given.tiny else (128, 2048)
    data = random_images(folder / "processes.npy", images, 32)

    def command(out: Path, size: int, launch: str = "") -> list[str]:
        words = f"--method simclr --data {data} --batch-size {size} --encoder.width {ENCODER.width} --epochs 2 "
        words += f"--threads 1 --log-every 4 --knn-every 0 --no-tensorboard --out {out} --data.cache {folder}"
        return [sys.executable, *launch.split(), "-m", "compressl", "pretrain", *words.split()]

    def rate(out: Path) -> float:
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        return statistics.median([line["time"]["images_per_second"] for line in lines if "time" in line][1:])

    together: dict[int, list[float]] = {count: [] for count in given.processes}
    apart: dict[int, list[float]] = {count: [] for count in given.processes}
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    for number in range(given.repeats):
        for count in given.processes:
            out = folder / f"processes-{count}-{number}"
            launch = f"-m torch.distributed.run --standalone --nproc-per-node {count}" if count > 1 else ""
            subprocess.run(command(out, batch, launch), check=True, capture_output=True, env=variables)
            together[count].append(rate(out))
            outs = [folder / f"apart-{count}-{number}-{i}" for i in range(count)]
            options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": variables}
            runs = [subprocess.Popen(command(out, batch // count), **options) for out in outs]
            codes = [run.wait() for run in runs]
            if any(codes):
                raise RuntimeError(f"A training beside {count - 1} others failed.")
            apart[count].append(sum(map(rate, outs)))
    return [
        {"processes": n, "images_per_second": statistics.median(rates), "all": rates, "apart": apart[n]}
        for n, rates in together.items()
    ]


def tables(record: dict[str, Any]) -> list[Table]:
    found: list[Table] = []
    for name, label, unit in (("batch", "images in a batch", "image"), ("side", "pixels a side", "pixel")):
        x, seconds = record[name]["x"], record[name]["seconds"]
        each = x if name == "batch" else [side * side for side in x]
        rows = [[str(n), f"{1e3 * s:.1f}", f"{1e6 * s / e:.3g}"] for n, s, e in zip(x, seconds, each, strict=True)]
        title = f"A step against the {label}: time grows with the power {exponent(each, seconds):.2f} of the {unit}s"
        found.append((title, [label, "ms", f"us per {unit}"], rows))
    kept, waits = record["stores"], ("open", "first_batch", "later_epoch")
    rows = [[f"{s['images']:,}", *(f"{s[name]:.3f}" for name in waits), f"{s['memory'] / 1e6:,.0f}"] for s in kept]
    large = [s for s in kept if s["images"] >= 10**5] or kept  # below, what is constant hides the growth
    counts = [s["images"] for s in large]
    start, memory = [s["first_batch"] + s["open"] for s in large], [max(1, s["memory"]) for s in large]
    each = (kept[-1]["memory"] - kept[0]["memory"]) / (kept[-1]["images"] - kept[0]["images"])
    title = (
        f"A store of N images: from 10^5 on, the start grows with the power {exponent(counts, start):.2f} of N, memory "
        f"with {exponent(counts, memory):.2f} ({each:.0f} bytes an image)"
    )
    found.append((title, ["N", "open, s", "first batch, s", "a later epoch, s", "memory, MB"], rows))
    rows = []
    for p in record["processes"]:
        apart = statistics.median(p["apart"])
        rows.append([str(p["processes"]), f"{p['images_per_second']:.0f}", f"{apart:.0f}"])
        rows[-1].append(f"{statistics.median(a / b for a, b in zip(p['all'], p['apart'], strict=True)):.0%}")
    head = ["processes", "images/s", "apart, each with its share", "efficiency"]
    found.append(("One batch shared by processes of one thread", head, rows))
    return found


def main() -> None:
    parser = arguments(__doc__, "scaling.json", repeats=3)
    parser.add_argument("--steps", type=int, default=3, help="of a round")
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.store is not None:
        print(json.dumps(start(given.store)))
        return
    given.batches, given.sides, given.counts, given.processes = BATCHES, SIDES, COUNTS, PROCESSES
    if given.tiny:
        given.repeats, given.steps, given.threads = 1, 1, 1
        given.batches, given.sides, given.counts, given.processes = (4, 8), (16, 24), (1000, 2000), (1,)
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content = steps(folder, given) | {"stores": stores(folder, given), "processes": processes(folder, given)}
    device = resolve_device("auto")
    precision = resolve_precision("auto", device)
    record = write(given.out, device, precision, given, **content)
    show(record, tables(record), given.out)


if __name__ == "__main__":
    main()

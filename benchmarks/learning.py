"""How soon a recipe learns: kNN accuracy against seconds of training.

    python benchmarks/learning.py speed --recipe cifar10/speed --data cifar10 --seconds 540 --seeds 0,1,2
    python benchmarks/learning.py plain --recipe cifar10/simclr --data cifar10 --seconds 540 -- --encoder.width 0.25

A recipe gets as many epochs as fit into the seconds, by its own rate in a few steps on this machine, so that its
schedule ends when the time does. Some training images are held out: neither trained on nor in the bank of the kNN, they
are what it is asked about. The test images are never seen, so settings may be chosen by these figures. The clock runs
from the first step to a mark, checkpoints included and kNN, which is computed afterwards, not.

Every run is a file of its own under ``--into``; what is there is not done again. ``results/learning.json`` collects
those of ``benchmarks/learning/``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import CLOCKS, RESULTS, Table, random_images, show, synchronize, take_step, write

from compressl.data import PackedImages, batches, default_cache, open_source, pack
from compressl.evaluation import features
from compressl.measures.knn import knn_predict
from compressl.models import EncoderCard
from compressl.randomness import permutation
from compressl.settings.loading import load_pretrain
from compressl.settings.pretrain import PretrainSettings
from compressl.settings.toml import flatten, to_toml
from compressl.training import checkpoint
from compressl.training.loop import pretrain
from compressl.training.setup import Training, prepare

RUNS = Path(__file__).parent / "learning"
HELD_OUT = 5000  # training images, and no more than a tenth of them
MARKS = 6  # equal parts of the training, each with a figure at its end
ELSEWHERE = ("out", "data.path", "data.cache", "threads")  # settings that are this machine's
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.92)


class Over(Exception):
    """The time is over."""


def configured(data: str, recipe: str, folder: Path, held_out: int, words: Sequence[str] = ()) -> PretrainSettings:
    """A recipe's training on all images but those held out, without looks from outside."""
    limit = len(open_source(data)) - held_out
    own = ["--recipe", recipe, "--data", data, "--data.limit", str(limit), "--out", str(folder / "run")]
    quiet = ["--knn-every", "0", "--no-tensorboard", "--save-every", "1000000"]
    return load_pretrain([*own, *quiet, *words], prog="benchmarks/learning.py")[0]


def count_held_out(data: str) -> int:
    return min(HELD_OUT, len(open_source(data)) // 10)


def seconds_of_step(settings: PretrainSettings, clock: str) -> float:
    """Of training, views included: a few steps at every size that the views grow through."""
    training = prepare(replace(settings, epochs=1_000_000))
    now, found = CLOCKS[clock], []
    noise = torch.Generator(training.device).manual_seed(0)
    options: dict[str, Any] = {"batch_size": settings.batch_size, "seed": settings.seed, "device": training.device}
    options["resident"] = training.images_on_device
    stages, total = len(training.stages), training.total_steps
    for stage in range(stages):
        first = -(-stage * total // stages)
        with batches(training.packed, start_step=first, total_steps=total, **options) as loader:
            runs = []
            for _ in range(7):
                synchronize(training.device)
                began = now()
                seen = training.look(loader)
                assert seen is not None
                take_step(training.method, training.optimizer, seen[1], training.precision, noise)
                synchronize(training.device)
                runs.append(now() - began)
        found.append(statistics.median(runs[2:]))  # the first ones allocate and choose
    return statistics.mean(found)


def learn(settings: PretrainSettings, seconds: float, clock: str, latest: float, bank: int | None) -> dict[str, Any]:
    """A training of that many seconds, and the kNN accuracy at its marks.

    Args:
        latest: of :func:`time.monotonic`, when a training that takes longer than it should is given up.
        bank: images that are known to the kNN; None for all that were trained on.
    """
    assert settings.out is not None
    step_seconds = seconds_of_step(settings, clock)
    assert settings.data.limit is not None
    steps_per_epoch = settings.data.limit // settings.batch_size
    epochs = max(1, int(seconds / (step_seconds * steps_per_epoch)))
    total = epochs * steps_per_epoch
    every = max(1, total // MARKS)
    settings = replace(settings, epochs=epochs, save_every_steps=every, keep=total // every + 1)
    now, marks, began = CLOCKS[clock], {}, 0.0

    def after_step(done: int) -> None:
        nonlocal began
        if done == 1:
            began = now() - step_seconds  # of that first step
        if done == total or (done % every == 0 and total - done > every // 2):
            marks[done] = now() - began
        if time.monotonic() > latest:
            raise Over

    try:
        pretrain(settings, after_step=after_step)
        over = False
    except Over:
        over = True
    training = prepare(settings)
    asked = Asked(training, bank)
    curve = []
    for path in checkpoint.checkpoints(settings.out / "checkpoints"):
        state = checkpoint.load(path)
        if state["step"] not in marks:
            continue
        training.method.load_state_dict(state["method"])
        step = state["step"]
        curve.append({"step": step, "seconds": round(marks[step], 2), "knn": asked.knn(training)})
    curve.sort(key=lambda mark: mark["step"])
    own = flatten(tomllib.loads(to_toml(settings)))
    return {
        "settings": {name: value for name, value in own.items() if name not in ELSEWHERE},
        "epochs": epochs,
        "given_up": over,
        "images_per_second": round(settings.batch_size / step_seconds, 1),
        "queries": len(asked.queries),
        "bank": len(asked.bank),
        "curve": curve,
        "environment": training.record(),
    }


class Asked:
    """The images that were held out, and those that answer for them."""

    def __init__(self, training: Training, bank: int | None) -> None:
        settings, limit = training.settings, training.settings.data.limit
        cache = settings.data.cache or default_cache()
        self.packed: PackedImages = pack(open_source(settings.data.path), view_size=training.card.size, cache=cache)
        order = permutation(len(self.packed), settings.seed, epoch=-1).numpy()  # `prepare` learns from the first ones
        self.bank, self.queries = order[:limit][:bank], order[limit:][:HELD_OUT]

    def knn(self, training: Training) -> float:
        """Accuracy of the encoder as it is now."""
        card: EncoderCard = training.card
        options: dict[str, Any] = {"size": card.size, "mean": card.mean, "std": card.std, "device": training.device}
        options["precision"] = training.precision
        with torch.compiler.set_stance("force_eager"):
            known, asked = (
                features.extract(training.method.encoder, self.packed, chosen, **options)
                for chosen in (self.bank, self.queries)
            )
        labels = torch.from_numpy(self.packed.labels).to(training.device)
        predicted = knn_predict(known, labels[torch.from_numpy(self.bank)], asked, int(labels.max()) + 1)
        right = predicted == labels[torch.from_numpy(self.queries)]
        return round(float(right.float().mean()), 4)


def soonest(curve: list[dict[str, Any]], level: float) -> float | None:
    """Seconds until the first mark at or above a level.

    >>> soonest([{"seconds": 5, "knn": 0.4}, {"seconds": 9, "knn": 0.6}], 0.5)
    9
    """
    return next((mark["seconds"] for mark in curve if mark["knn"] >= level), None)


def tables(record: dict[str, Any]) -> list[Table]:
    """One for each machine and task: every recipe's epochs, seconds and accuracy over the seeds."""
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for run in record["runs"]:
        task = f"{run['task']}; {run['asked_seconds']:g} s were asked for, {run['bank']:,} images known to the kNN"
        groups.setdefault(task, {}).setdefault(run["name"], []).append(run)
    found: list[Table] = []
    for task, names in groups.items():
        reached = [lv for lv in LEVELS if any(soonest(r["curve"], lv) is not None for rs in names.values() for r in rs)]
        head = ["recipe", "seeds", "epochs", "images/s", "seconds", "kNN at the end"]
        rows = [
            [
                name,
                str(len(runs)),
                _span([r["epochs"] for r in runs], "{:.0f}"),
                _span([r["images_per_second"] for r in runs], "{:,.0f}"),
                _span([r["curve"][-1]["seconds"] for r in runs], "{:,.0f}"),
                _span([r["curve"][-1]["knn"] for r in runs], "{:.1%}"),
                *(_when(runs, level) for level in reached[-2:]),
            ]
            for name, runs in names.items()
        ]
        found.append((task, head + [f"seconds to {level:.0%}" for level in reached[-2:]], rows))
    return found


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Accuracy against seconds, a line for each seed: a panel for each machine and task."""
    from matplotlib import pyplot as plt

    tasks = list(dict.fromkeys(run["task"] for run in runs))
    names = list(dict.fromkeys(run["name"] for run in runs))
    figure, panels = plt.subplots(len(tasks), 1, figsize=(7, 3.2 * len(tasks)), layout="constrained", squeeze=False)
    for axes, task in zip(panels[:, 0], tasks, strict=True):
        axes.set_title(task, fontsize=9)
        for run in (run for run in runs if run["task"] == task):
            label = run["name"] if run["name"] not in axes.get_legend_handles_labels()[1] else None
            x, y = zip(*((mark["seconds"], 100 * mark["knn"]) for mark in run["curve"]), strict=True)
            axes.plot(x, y, color=f"C{names.index(run['name'])}", label=label, marker="o", markersize=3, linewidth=1.2)
        axes.set_xlim(left=0)
        axes.set_ylabel("kNN accuracy, %")
        axes.legend(frameon=False, fontsize=9, loc="lower right")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    panels[-1, 0].set_xlabel("seconds of training")
    figure.savefig(path, dpi=110)


def _span(values: Sequence[float], form: str) -> str:
    """The mean, and from where to where."""
    low, mean, high = (form.format(v) for v in (min(values), statistics.mean(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def _when(runs: list[dict[str, Any]], level: float) -> str:
    seconds = [s for r in runs if (s := soonest(r["curve"], level)) is not None]
    if not seconds:
        return "not reached"
    return _span(seconds, "{:,.0f}") + ("" if len(seconds) == len(runs) else f", {len(seconds)} of {len(runs)}")


def described(settings: PretrainSettings, record: dict[str, Any], clock: str) -> str:
    width = f" of width {settings.encoder.width:g}" if settings.encoder.width != 1 else ""
    kind = {"wall": "", "cpu": ", seconds of computing"}[clock]
    return (
        f"{settings.encoder.name}{width} on {settings.data.limit:,} images of {settings.data.path}, "
        f"{record['environment']['processor']}, {record['environment']['precision']}{kind}"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage="%(prog)s name [options] [-- options of compressl pretrain]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", help="what the recipe is called in the table")
    parser.add_argument("--recipe", default="cifar10/speed")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--seconds", type=float, default=540.0)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--bank", type=int, default=None, help="images known to the kNN; default: all trained on")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--into", type=Path, default=RUNS)
    parser.add_argument("--out", type=Path, default=RESULTS / "learning.json", help="collects all runs of --into")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    given = parser.parse_args(words[:end])
    given.options = words[end + 1 :]  # of compressl pretrain
    if given.tiny:
        given.seconds, given.threads = 0.0, 1
    if given.clock == "cpu" and given.threads != 1:
        parser.error("--clock cpu counts every thread's seconds: give --threads 1")
    return given


def one(given: argparse.Namespace, seed: int, folder: Path) -> dict[str, Any]:
    """The record of a run."""
    data, words = given.data, [*given.options, "--seed", str(seed)]
    if given.tiny:
        data = str(random_images(folder / "images.npy", 80, 16))
        np.save(folder / "images.labels.npy", np.arange(80) % 2)
        words += ["--batch-size", "8", "--encoder.width", "0.125", "--data.cache", str(folder)]
    settings = configured(data, given.recipe, folder, count_held_out(data), words)
    found = learn(settings, given.seconds, given.clock, time.monotonic() + 4 * given.seconds + 60, given.bank)
    row = {"name": given.name, "seed": seed, "asked_seconds": given.seconds, **found}
    row["load"] = round(os.getloadavg()[0], 2)
    return row | {"task": described(settings, row, given.clock)}


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    given.into.mkdir(parents=True, exist_ok=True)
    for seed in map(int, given.seeds.split(",")):
        path = given.into / f"{given.name}-{seed}.json"
        if path.exists():
            print(f"{path.name} is there already", flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            row = one(given, seed, Path(folder))
        path.write_text(json.dumps(row, indent=1) + "\n")
        print(f"{path.name}: {row['epochs']} epochs, {row['curve'][-1]}", flush=True)
    runs = [json.loads(path.read_text()) for path in sorted(given.into.glob("*.json"))]
    device = torch.device(runs[-1]["environment"]["device"])
    record = write(given.out, device, runs[-1]["environment"]["precision"], given, runs=runs)
    show(record, tables(record), given.out)


if __name__ == "__main__":
    main()

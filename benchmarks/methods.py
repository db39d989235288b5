"""Every method under one budget: trained, measured, timed, and rendered into docs/methods.md.

    python benchmarks/methods.py train digits --jobs 2       # every method, three seeds
    python benchmarks/methods.py train cifar10 --jobs 2
    python benchmarks/methods.py time                        # a training step of each, against SimCLR's
    python benchmarks/methods.py target                      # a beta that finds itself, as a curve
    python benchmarks/methods.py render

``train`` goes on where it was stopped: a figure that is on file is not computed again. The budget of each data set and
what a method's settings differ in stand in ``benchmarks/methods.toml``. Each figure is a file of its own under
``benchmarks/methods/``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compressl.data import default_cache, open_splits, pack
from compressl.devices import autocast, environment, resolve_device, resolve_precision
from compressl.evaluation import features, knn, linear
from compressl.evaluation.intervals import bootstrap_mean
from compressl.evaluation.protocol import Labelled, pack_bits
from compressl.methods import METHODS, create_method
from compressl.models import create_encoder, load_encoder
from compressl.randomness import permutation
from compressl.runs import RunFolder
from compressl.settings.encoder import EncoderSettings
from compressl.settings.loading import load_pretrain
from compressl.settings.methods import METHODS as SETTINGS
from compressl.settings.methods import describe
from compressl.settings.pretrain import OptimizerSettings, PretrainSettings
from compressl.settings.toml import flatten, to_toml
from compressl.training.optimizers import create_optimizer

ROOT = Path(__file__).parent.parent
BUDGETS = ROOT / "benchmarks" / "methods.toml"
RESULTS = ROOT / "benchmarks" / "methods"
PAGE = ROOT / "docs" / "methods.md"
SEEDS = (0, 1, 2)
DATA = ("digits", "cifar10")
BASELINE = "random encoder"
WEIGHT_DECAYS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def settings(data: str, method: str, seed: int) -> PretrainSettings:
    """The budget of a data set with what is the method's own."""
    table = tomllib.loads(BUDGETS.read_text())[data]
    own = flatten(table.pop("methods")[method])
    values = flatten({key: value for key, value in table.items() if key != "about"}) | own
    flags = {"data.path": "data", "method.name": "method", "encoder.name": "encoder", "optimizer.name": "optimizer"}
    words = [
        "--method",
        method,
        "--seed",
        str(seed),
        "--out",
        str(ROOT / "runs" / "methods" / data / f"{method}-{seed}"),
    ]
    for path, value in values.items():
        flag = flags.get(path, path).replace("_", "-")
        if isinstance(value, bool):
            group, dot, last = flag.rpartition(".")
            words.append(f"--{flag}" if value else f"--{group}{dot}no-{last}")
        else:
            words += [f"--{flag}", str(value)]
    return load_pretrain(words, prog="benchmarks/methods.py")[0]


def train(data: str, methods: list[str], seeds: list[int], jobs: int) -> None:
    """Every method and seed that is not on file yet, ``jobs`` at a time, one thread each."""
    todo = [(m, s) for s in seeds for m in methods if not (RESULTS / data / f"{m}-{s}.json").exists()]
    print(f"{data}: {len(todo)} runs to do", flush=True)

    def one(job: tuple[str, int]) -> bool:
        began = time.monotonic()
        command = [sys.executable, __file__, "one", data, job[0], str(job[1])]
        variables = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=3600, env=variables, check=False)
        last = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()[-1:] or ["no output"]
        print(f"{job[0]} seed {job[1]}: {last[0]} ({time.monotonic() - began:.0f} s)", flush=True)
        return done.returncode == 0

    with ThreadPoolExecutor(jobs) as pool:
        if not all(pool.map(one, todo)):
            sys.exit(1)


def one(data: str, method: str, seed: int) -> None:
    """Train and measure once; the test images are touched here and nowhere else."""
    from compressl.training.loop import pretrain

    torch.set_num_threads(1)
    if method == BASELINE:
        configuration = settings(data, "simclr", seed)  # for the images and the encoder
        encoder, training = None, None
    else:
        configuration = settings(data, method, seed)
        run = RunFolder(configuration.run_folder())
        same = run.config.exists() and comparable(run.config.read_text()) == comparable(to_toml(configuration))
        if run.status() != "finished" or not same:
            run = pretrain(replace(configuration, overwrite=not same))
        encoder, _ = load_encoder(run.path)
        lines = [line for line in run.read_metrics() if "loss" in line]
        training = {name: value for name, value in lines[-1].items() if name != "time"}
    record = measure(configuration, encoder, seed)
    record |= {"data": data, "method": method, "seed": seed, "training": training}
    record["settings"] = None if method == BASELINE else comparable(to_toml(configuration))
    folder = RESULTS / data
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{method}-{seed}.json").write_text(json.dumps(record, indent=1) + "\n")
    print("done")


def measure(configuration: PretrainSettings, encoder: Any, seed: int) -> dict[str, Any]:
    """kNN and linear probe on the images of the budget: the classifiers of `compressl evaluate`, on features in the
    precision of the training."""
    device = resolve_device(configuration.device)
    precision = resolve_precision(configuration.precision, device)
    sources = open_splits(configuration.data.path, None, seed=0)
    parts = []
    for role, source in (("training", sources.train), ("test", sources.test)):
        packed = pack(source, view_size=configuration.views.size or 32, cache=default_cache())
        limit = configuration.data.limit
        if role == "training" and limit is not None and limit < len(packed):  # those that were learnt from
            packed = packed.subset(permutation(len(packed), seed, epoch=-1)[:limit].sort().values.numpy())
        parts.append(Labelled.of(packed, role))
    recipe = configuration.views.resolve(configuration.views.size or 32)[0]
    if encoder is None:
        encoder = create_encoder(replace(configuration.encoder, zero_init=False), recipe.size, seed)
    bank, queries = (
        features.extract(
            encoder.to(device), p.packed, p.indices, size=recipe.size, mean=recipe.mean, std=recipe.std,
            device=device, precision=precision,
        )
        for p in parts
    )  # fmt: skip
    labels = torch.from_numpy(parts[0].labels).to(device)
    classes = int(labels.max()) + 1
    probe = linear.fit_best(bank, labels, classes, WEIGHT_DECAYS, 0)
    predicted = {"knn": knn.knn_predict(bank, labels, queries, classes), "linear": probe.predict(queries)}
    record: dict[str, Any] = {"environment": environment(device, precision), "test_images": len(parts[1].labels)}
    for name, classified in predicted.items():
        right = classified.cpu().numpy() == parts[1].labels
        interval = bootstrap_mean(right)
        record[name] = {
            "value": interval.value, "low": interval.low, "high": interval.high, "correct": pack_bits(right)
        }  # fmt: skip
    return record


def comparable(text: str) -> dict[str, Any]:
    """The settings in a TOML text that a figure depends on."""
    return {k: v for k, v in flatten(tomllib.loads(text)).items() if k not in ("out", "data.cache", "overwrite")}


def step_time(batch_size: int, repeats: int, budget: float, width: float) -> None:
    """A training step (forward, backward, optimizer, slow copy) of each method on a constant batch, in turn."""
    device = resolve_device("auto")
    precision = resolve_precision("auto", device)
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(batch_size, 3, 32, 32, generator=generator) for _ in range(2)]
    views = [view.to(device).contiguous(memory_format=torch.channels_last) for view in views]
    encoder_settings = EncoderSettings(width=width)
    made = {}
    for name in METHODS:
        encoder = create_encoder(encoder_settings, 32, 0)
        method = create_method(SETTINGS[name](), encoder, int(encoder.num_features), 0)
        method = method.to(device).to(memory_format=torch.channels_last)
        made[name] = method, create_optimizer(OptimizerSettings(), method)

    def step(name: str) -> float:
        method, optimizer = made[name]
        noise = torch.Generator(device).manual_seed(0)
        _wait(device)
        began = time.perf_counter()
        method.before_step(0.5)
        with autocast(device, precision):
            loss, _ = method(views, noise)
        loss.backward()
        optimizer.step()
        method.after_step(0.5)
        optimizer.zero_grad()
        _wait(device)
        return time.perf_counter() - began

    seconds: dict[str, list[float]] = {name: [] for name in made}
    began = time.monotonic()
    for name in made:
        step(name)  # memory is allocated, kernels are chosen
    for _ in range(repeats):
        for name in made:
            # SimCLR right before each: the machine's mood changes within a round
            base, own = step("simclr"), step(name)
            seconds[name].append(own / base)
        print(", ".join(f"{n} {statistics.median(r):.3f}" for n, r in seconds.items()), flush=True)
        if time.monotonic() - began > budget:
            break
    record = {
        "batch_size": batch_size,
        "encoder": f"resnet18 of width {width:g}, small stem, 32 px, two views",
        "heads": "each method's defaults",
        "environment": environment(device, precision),
        "ratio": {name: {"median": statistics.median(r), "all": r} for name, r in seconds.items()},
    }
    (RESULTS / "step-time.json").write_text(json.dumps(record, indent=1) + "\n")


def target(bits: list[float]) -> None:
    """Residual information and beta of C-SimCLR on the digits under targets, step by step: a file and a picture."""
    from compressl.training.loop import pretrain

    torch.set_num_threads(1)
    courses = {}
    for value in bits:
        configuration = settings("digits", "c-simclr", 0)
        method = replace(configuration.method, target_residual_bits=value)  # type: ignore[call-arg]
        out = ROOT / "runs" / "methods" / "target" / f"{value:g}"
        run = RunFolder(out)
        if run.status() != "finished":
            run = pretrain(replace(configuration, method=method, out=out, log_every=1))
        lines = [line for line in run.read_metrics() if "beta" in line]
        courses[f"{value:g}"] = {
            "bits": [round(line["residual_information_excess"] / np.log(2), 4) for line in lines],
            "beta": [round(line["beta"], 5) for line in lines],
        }
    record = {
        "what": "C-SimCLR on the digits, --target-residual-bits",
        "environment": environment(torch.device("cpu"), resolve_precision("auto", torch.device("cpu"))),
        "settings": comparable(to_toml(configuration)),
        "courses": courses,
    }
    (RESULTS / "target.json").write_text(json.dumps(record) + "\n")
    draw_target(courses)


def draw_target(courses: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(7, 5), layout="constrained")
    for name, course in courses.items():
        smooth = np.convolve(course["bits"], np.ones(25) / 25, mode="valid")
        steps = np.arange(len(course["bits"]))[24:]
        (line,) = above.plot(steps, smooth, label=f"target {name} bits")
        above.axhline(float(name), color=line.get_color(), linewidth=0.8, linestyle="--")
        below.semilogy(course["beta"], color=line.get_color())
    above.set_ylabel("residual information\nabove its floor, bits")
    above.set_ylim(bottom=0)
    above.legend(frameon=False, fontsize=9)
    below.set_ylabel("beta")
    below.set_xlabel("step (bits: mean of 25)")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(PAGE.parent / "target.png", dpi=110)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def render() -> None:
    """The tables between the markers of docs/methods.md."""
    page = PAGE.read_text()
    for data in DATA:
        page = _between(page, data, table(data))
    page = _between(page, "step time", step_table())
    PAGE.write_text(page)


def _between(page: str, name: str, text: str) -> str:
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    return re.sub(f"{start}.*?{end}", lambda _: f"{start}\n{text}\n{end}", page, flags=re.DOTALL)


def table(data: str) -> str:
    about = tomllib.loads(BUDGETS.read_text())[data]["about"]
    records = [json.loads(path.read_text()) for path in sorted((RESULTS / data).glob("*.json"))]
    for r in records:
        if r["settings"] is not None and r["settings"] != comparable(to_toml(settings(data, r["method"], r["seed"]))):
            sys.exit(f"{data}/{r['method']}-{r['seed']}.json was not measured with the settings of {BUDGETS.name}.")
    rows = []
    for name in [*SETTINGS, BASELINE]:
        runs = sorted((r for r in records if r["method"] == name), key=lambda r: r["seed"])
        if not runs:
            continue
        cells = []
        for measure_name in ("knn", "linear"):
            values = [100 * r[measure_name]["value"] for r in runs]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}")
        label = describe(SETTINGS[name]).split(":")[0].rstrip(".") if name in SETTINGS else "random weights"
        rows.append(f"| `{name}` | {label} | {cells[0]} | {cells[1]} | {len(runs)} |")
    if not rows:
        return "No figures yet."
    one_record = records[0]
    machine = one_record["environment"]
    largest = max(r[m]["high"] - r[m]["low"] for r in records for m in ("knn", "linear")) * 50
    return "\n".join(
        [
            f"{about} Mean and standard deviation over seeds, in percent, on {one_record['test_images']:,} test images "
            f"(the 95 % interval over test images is at most ±{largest:.1f}). "
            f"Machine: {machine['processor']}, one thread, {machine['precision']}; torch {machine['torch']}, "
            f"Python {machine['python']}.",
            "",
            "| method | | kNN | linear probe | seeds |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def step_table() -> str:
    path = RESULTS / "step-time.json"
    if not path.exists():
        return "No figures yet."
    record = json.loads(path.read_text())
    machine, repeats = record["environment"], len(record["ratio"]["simclr"]["all"])
    rows = [f"| `{name}` | {r['median']:.2f} | {min(r['all']):.2f} to {max(r['all']):.2f} |"
            for name, r in record["ratio"].items()]  # fmt: skip
    return "\n".join(
        [
            f"{record['encoder']}, batch {record['batch_size']}, heads: {record['heads']}. Each step was timed "
            f"right after one of SimCLR's; median and range of the ratio over {repeats} repeats. "
            f"Machine: {machine['processor']}, {machine['threads']} thread(s), {machine['device']}, "
            f"{machine['precision']}; torch {machine['torch']}.",
            "",
            "| method | step time, SimCLR = 1 | range |",
            "|---|---|---|",
            *rows,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("train")
    verb.add_argument("data", choices=DATA)
    verb.add_argument("--methods", default=",".join([*METHODS, BASELINE]))
    verb.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    verb.add_argument("--jobs", type=int, default=1)
    verb = verbs.add_parser("one")
    verb.add_argument("data", choices=DATA)
    verb.add_argument("method")
    verb.add_argument("seed", type=int)
    verb = verbs.add_parser("time")
    verb.add_argument("--batch-size", type=int, default=256)
    verb.add_argument("--repeats", type=int, default=5)
    verb.add_argument("--budget", type=float, default=600.0, help="seconds after which no round is begun")
    verb.add_argument("--width", type=float, default=1.0)
    verb = verbs.add_parser("target")
    verb.add_argument("--bits", default="0.5,1,2")
    verbs.add_parser("render")
    given = parser.parse_args()
    match given.verb:
        case "train":
            train(given.data, given.methods.split(","), [int(s) for s in given.seeds.split(",")], given.jobs)
        case "one":
            one(given.data, given.method, given.seed)
        case "time":
            step_time(given.batch_size, given.repeats, given.budget, given.width)
        case "target":
            target([float(b) for b in given.bits.split(",")])
        case "render":
            render()


if __name__ == "__main__":
    main()

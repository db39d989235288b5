"""Every method under one budget: trained and measured, as rows of docs/methods.md.

    python benchmarks/methods.py train digits --jobs 2       # every method, three seeds
    python benchmarks/methods.py train cifar10 --jobs 2
    python benchmarks/methods.py train defaults --seeds 0    # nothing but each method's defaults, batch 256
    python benchmarks/methods.py try defaults byol -- --optimizer.lr 0.25
    python benchmarks/methods_page.py                        # the page

``train`` goes on where it was stopped: a figure that is on file is not computed again. The budget of each data set and
what a method's settings differ in stand in ``benchmarks/methods.toml``. Each figure is a file of its own under
``benchmarks/methods/``.

``try`` is for choosing settings: it trains with other options and adds the kNN accuracy *between training images* to
``trials.json``. It never sees a test image.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from compressl.data import default_cache, open_splits, pack
from compressl.devices import environment, resolve_device, resolve_precision
from compressl.evaluation import features
from compressl.evaluation.labelled import Labelled
from compressl.measures import knn, linear
from compressl.measures.intervals import bootstrap_mean
from compressl.measures.packing import pack_bits
from compressl.methods import METHODS
from compressl.models import create_encoder, load_encoder
from compressl.randomness import permutation
from compressl.runs import RunFolder
from compressl.settings.loading import load_pretrain
from compressl.settings.pretrain import PretrainSettings
from compressl.settings.toml import flatten, to_toml
from compressl.training.loop import pretrain

ROOT = Path(__file__).parent.parent
BUDGETS = ROOT / "benchmarks" / "methods.toml"
RESULTS = ROOT / "benchmarks" / "methods"
SEEDS = (0, 1, 2)
DATA = ("digits", "cifar10", "defaults")
BASELINE = "random encoder"
WEIGHT_DECAYS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def settings(data: str, method: str, seed: int, options: Sequence[str] = ()) -> PretrainSettings:
    """The budget of a data set with what is the method's own, and with further options of the command line."""
    table = tomllib.loads(BUDGETS.read_text())[data]
    own = flatten(table.pop("methods", {}).get(method, {}))
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
    return load_pretrain([*words, *options], prog="benchmarks/methods.py")[0]


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


def attempt(data: str, method: str, seed: int, options: list[str]) -> None:
    """Train with other options and keep what kNN between training images says of it."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        out = ["--out", folder, "--overwrite", "--knn-every", "1000000"]  # and at the last step
        configuration = settings(data, method, seed, [*options, *out])
        last = [line for line in pretrain(configuration).read_metrics() if "knn" in line][-1]
    trial = {"data": data, "method": method, "seed": seed, "options": " ".join(options), "knn": round(last["knn"], 4)}
    trial["environment"] = environment(
        resolve_device(configuration.device), resolve_precision(configuration.precision, torch.device("cpu"))
    )
    path = RESULTS / "trials.json"
    before = json.loads(path.read_text()) if path.exists() else []
    names = ("data", "method", "seed", "options")
    kept = [other for other in before if any(other[name] != trial[name] for name in names)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([*kept, trial], indent=1) + "\n")
    print(f"{method} seed {seed} {trial['options']}: {trial['knn']:.1%}", flush=True)


def one(data: str, method: str, seed: int) -> None:
    """Train and measure once; the test images are touched here and nowhere else."""
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
    verb = verbs.add_parser("try")
    verb.add_argument("data", choices=DATA)
    verb.add_argument("method")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("options", nargs="*", help="of compressl pretrain, after --")
    given = parser.parse_args()
    if given.verb == "train":
        train(given.data, given.methods.split(","), [int(s) for s in given.seeds.split(",")], given.jobs)
    elif given.verb == "try":
        attempt(given.data, given.method, given.seed, given.options)
    else:
        one(given.data, given.method, given.seed)


if __name__ == "__main__":
    main()

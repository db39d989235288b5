"""What the benchmarks of speed share: ways that take turns, a training that pauses, peers, records and tables.

    python benchmarks/views.py       # one of them; this file is none

A *way* does some units of work when called with their number: ``way(3)``, three training steps, say.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.metadata
import json
import math
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressl.devices import autocast, environment
from compressl.methods import Method
from compressl.models.encoders import define_torchvision_operators
from compressl.settings.encoder import EncoderSettings
from compressl.settings.methods import SimCLRSettings
from compressl.settings.pretrain import DataSettings, PretrainSettings
from compressl.training.loop import pretrain
from compressl.training.setup import Training, prepare

RESULTS = Path(__file__).parent / "results"
PEERS = ("torchvision", "kornia", "lightly")
INSTALL = "pip install torchvision kornia lightly"  # in an environment of its own that has compressl too
FOREVER = 10**6
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

Way = Callable[[int], object]
Table = tuple[str, list[str], list[list[str]]]  # title, head, rows


def arguments(doc: str | None, result: str, repeats: int = 7) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--budget-s", type=float, default=math.inf, help="no round of a comparison begins after it")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU, and loader workers")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: seconds of computing, for a machine that does other work too; loaders then have no workers",
    )
    parser.add_argument("--out", type=Path, default=RESULTS / result)
    parser.add_argument("--tiny", action="store_true", help="whether it runs at all, in seconds: no figure to quote")
    return parser


def peer(name: str) -> ModuleType | None:
    """A peer library, or None where it is not installed or cannot be imported."""
    define_torchvision_operators()
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError):
        return None


def one_arena() -> None:
    """glibc keeps large arrays of other threads than the main one badly: a paused training would pay for its thread."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").mallopt(-8, 1)  # M_ARENA_MAX


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def alternate(
    ways: dict[str, Way],
    units: int,
    repeats: int,
    device: torch.device,
    budget: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds for ``units`` of work by every way in every round; who goes first changes.

    Each way does one unit before its clock starts: caches are its own then, and what others left running has ended.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(1)  # memory is allocated, kernels are chosen
    ends = time.monotonic() + budget
    for number in range(repeats):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            ways[name](1)
            synchronize(device)
            began = clock()
            ways[name](units)
            synchronize(device)
            seconds[name].append(clock() - began)
        if time.monotonic() > ends:
            break
    return seconds


def rows_of(seconds: dict[str, list[float]], count: int) -> dict[str, Any]:
    """For every way: how many a second (median), and the seconds of each round."""
    return {
        name: {"per_second": count / statistics.median(runs), "seconds": [round(run, 6) for run in runs]}
        for name, runs in seconds.items()
    }


def ratio(slower: list[float], faster: list[float]) -> str:
    """How often the one fits into the other, round by round: the median, and from where to where.

    >>> ratio([2.0, 6.0, 9.0], [1.0, 2.0, 3.0])
    '3.0 (2.0 to 3.0)'
    """
    rounds = [a / b for a, b in zip(slower, faster, strict=True)]
    return f"{statistics.median(rounds):.1f} ({min(rounds):.1f} to {max(rounds):.1f})"


def exponent(x: list[float], y: list[float]) -> float:
    """The slope of log y over log x by least squares: 1 where cost is in proportion.

    >>> round(exponent([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


class _Enough(Exception):
    """Ends a training that nobody needs any more."""


class PausedTraining:
    """``compressl pretrain``, the loop itself, some steps at a time: a way.

    It runs in a thread of its own that stands still between two calls. The first call prepares it too.
    """

    def __init__(self, settings: PretrainSettings) -> None:
        one_arena()
        self._settings = settings
        self._go, self._there = threading.Semaphore(0), threading.Semaphore(0)
        self._left = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __call__(self, steps: int) -> None:
        self._left = steps
        self._go.release()
        self._there.acquire()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._left = -1
        self._go.release()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._wait()
            pretrain(self._settings, after_step=self._pause)
        except _Enough:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._there.release()

    def _pause(self, step: int) -> None:
        self._left -= 1
        if self._left == 0:
            self._there.release()
            self._wait()

    def _wait(self) -> None:
        self._go.acquire()
        if self._left < 0:
            raise _Enough


def simclr(
    data: Path | str,
    out: Path,
    *,
    batch_size: int,
    precision: str = "auto",
    device: str = "auto",
    encoder: EncoderSettings | None = None,
    **more: Any,
) -> PretrainSettings:
    """SimCLR with the library's defaults and none of the looks from outside: no kNN, no checkpoint."""
    return PretrainSettings(
        data=DataSettings(path=str(data), cache=out / "cache"),
        method=SimCLRSettings(),
        encoder=encoder or EncoderSettings(),
        batch_size=batch_size,
        precision=precision,  # type: ignore[arg-type]
        device=device,
        out=out / f"run-{precision}-{batch_size}",
        **{"epochs": FOREVER, "save_every": FOREVER, "knn_every": 0, "tensorboard": False, **more},
    )


def loss_of(method: Method, views: list[Tensor], precision: str, noise: torch.Generator | None = None) -> Tensor:
    with autocast(views[0].device, precision):
        loss, _ = method(views, noise)
    return loss


def take_step(
    method: Method, optimizer: torch.optim.Optimizer, views: list[Tensor], precision: str, noise: torch.Generator
) -> None:
    """Forward, backward, optimizer and slow copy, in the middle of a training."""
    torch.compiler.cudagraph_mark_step_begin()  # for encoders that are replayed as graphs; else it changes nothing
    method.before_step(0.5)
    loss_of(method, views, precision, noise).backward()
    optimizer.step()
    method.after_step(0.5)
    optimizer.zero_grad()


def bare_step(training: Training) -> Way:
    """Forward, backward and optimizer of a training on two views that stay the same: what no loop can do without."""
    method, optimizer, device = training.method, training.optimizer, training.device
    size, n = training.card.size, training.settings.batch_size
    views = [torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    views = [view.to(device).contiguous(memory_format=torch.channels_last) for view in views]
    noise = torch.Generator(device).manual_seed(0)

    def way(steps: int) -> None:
        for _ in range(steps):
            take_step(method, optimizer, views, training.precision, noise)

    return way


def prepare_bare(settings: PretrainSettings) -> Way:
    return bare_step(prepare(settings))


def random_images(path: Path, count: int, side: int) -> Path:
    """A ``.npy`` file of random images, as :mod:`compressl` reads it."""
    np.save(path, np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8))
    return path


def write(path: Path, device: torch.device, precision: str, given: Any, **content: Any) -> dict[str, Any]:
    """The record of a benchmark, also on disk."""
    record = {
        "command": command(sys.argv),
        "tiny": given.tiny,
        "environment": environment(device, precision),
        "peers": {name: importlib.metadata.version(name) if peer(name) else None for name in PEERS},
        "processors": os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()],  # above the number of processors, trust ratios
        **content,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    return record


def command(words: list[str]) -> str:
    """What was called, wherever the record was to go.

    >>> command(["/a/benchmarks/views.py", "--threads", "1", "--out", "b.json"])
    'python benchmarks/views.py --threads 1'
    """
    script, *options = words
    if "--out" in options:
        at = options.index("--out")
        options = options[:at] + options[at + 2 :]
    return " ".join(["python", f"benchmarks/{Path(script).name}", *options])


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table that can be read before it is rendered.

    >>> print(markdown(["a", "b"], [["1", "22"]]))
    | a | b  |
    |---|----|
    | 1 | 22 |
    """
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(head), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)])


def show(record: dict[str, Any], tables: list[Table], path: Path) -> None:
    """The tables on the terminal."""
    machine = record["environment"]
    print(f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, load {record['load'][0]}")
    for title, head, rows in tables:
        print(f"\n{title}\n\n{markdown(head, rows)}")
    print(f"\nWritten to {path}.")

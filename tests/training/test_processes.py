"""`compressl pretrain` under torchrun: two processes train as one, and stop, fail and go on together.

Run as a script, this file is one of those processes, with something happening to its training.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from rich.console import Console

from compressl import distributed
from compressl.cli import main
from compressl.errors import NumericsError
from compressl.methods.csimclr import CSimCLR
from compressl.methods.simclr import SimCLR
from compressl.runs import RunFolder
from compressl.settings.pretrain import DataSettings, OptimizerSettings, PretrainSettings
from compressl.settings.toml import to_toml
from compressl.training import loop
from compressl.training.loop import pretrain

Make = Callable[..., PretrainSettings]
Forward = Callable[..., Any]

SECONDS = 90  # for one command; a machine with two cores that does nothing else needs about 6
pytestmark = [
    pytest.mark.timeout(5 * SECONDS),
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes of torchrun in /proc"),
]


def waits(forward: Forward, folder: Path) -> Forward:
    """After five steps, until the test says so."""
    calls = 0

    def patched(self: Any, views: Any, generator: Any = None) -> Any:
        nonlocal calls
        calls += 1
        deadline = time.monotonic() + SECONDS
        while calls == 6 and not (folder / "go on").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return forward(self, views, generator)

    return patched


def poisoned(forward: Forward, folder: Path) -> Forward:
    """What one process makes of its images at step 5 is no number; both record the weights before each step."""
    seen: list[dict[str, torch.Tensor]] = []

    def patched(self: Any, views: Any, generator: Any = None) -> Any:
        seen.append({name: value.clone() for name, value in self.state_dict().items()})
        torch.save(seen, folder / f"seen-{distributed.rank()}.pt")
        nothing = float("nan") if len(seen) == 6 and distributed.rank() == 1 else 1.0
        return forward(self, [view * nothing for view in views], generator)

    return patched


def pulled(forward: Forward, folder: Path) -> Forward:
    """A loss that makes all embeddings alike."""

    def patched(self: Any, views: Any, generator: Any = None) -> Any:
        return (self.embed(torch.cat(list(views))) - 1).square().mean(), {}

    return patched


HAPPENINGS = {"waits": (CSimCLR, waits), "poisoned": (SimCLR, poisoned), "pulled": (SimCLR, pulled)}


def worker(happening: str, folder: Path, words: list[str]) -> None:
    """`compressl` with a changed method."""
    method, patch = HAPPENINGS[happening]
    method.forward = patch(method.forward, folder)
    loop.ALARM_EVERY = 5
    main(words)


@contextmanager
def torchrun(settings: PretrainSettings, folder: Path, happening: str = "") -> Iterator[subprocess.Popen[str]]:
    """The command on two processes; whatever happens, none of them is left running."""
    config = folder / "config.toml"
    config.write_text(to_toml(settings))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [__file__, happening, str(folder)] if happening else ["-m", "compressl"]
    command += ["pretrain", "--config", str(config), "--out", str(settings.out)]
    pipe = subprocess.PIPE
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)
    try:
        yield process
    finally:
        if process.poll() is None:  # something above went wrong
            started = _workers(process)
            process.kill()
            for pid in started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.communicate()


def _workers(process: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if "--config" in Path(f"/proc/{pid}/cmdline").read_text()]


def _exit_codes(errors: str) -> dict[int, int]:
    """Of each rank, from torchrun's last words; torchrun itself ends with 1 whatever they were."""
    found = re.findall(r"^\s*rank\s*: (\d+).*?^\s*exitcode\s*: (-?\d+)", errors, re.MULTILINE | re.DOTALL)
    return {int(rank): int(code) for rank, code in found}


def _encoder(run: Path) -> torch.Tensor:
    return torch.cat([v.double().flatten() for v in safetensors.torch.load_file(run / "encoder.safetensors").values()])


def test_two_processes_stop_go_on_and_end_as_one(make: Make, tmp_path: Path) -> None:
    # small steps: at large ones a rounding difference grows tenfold in each, in one process as in two
    long = {"epochs": 8, "threads": torch.get_num_threads(), "optimizer": OptimizerSettings(lr=0.003)}
    pretrain(make(out="whole", **long))
    whole = RunFolder(tmp_path / "whole")
    settings = replace(make(out="parts", **long), threads=1)
    run = RunFolder(tmp_path / "parts")

    with torchrun(settings, tmp_path, "waits") as process:
        deadline = time.monotonic() + SECONDS
        while len(run.read_metrics()) < 5 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        writer = int((run.path / "run.lock").read_text().split()[1])
        (other,) = set(_workers(process)) - {writer}
        os.kill(other, signal.SIGTERM)
        (tmp_path / "go on").touch()  # they wait for it in step 6: the signal comes first, however slow the machine
        said, errors = process.communicate(timeout=SECONDS)
    assert _exit_codes(errors) == {0: 75, 1: 75}, errors
    assert errors.count("Run the same command again") == 1
    assert said.count("8 epochs of 4 steps") == 1
    assert run.status() == "interrupted"
    steps = len(run.read_metrics())
    assert steps == 6

    shutil.copytree(run.path, tmp_path / "alone")
    heard = io.StringIO()
    pretrain(make(out="alone", **long), console=Console(file=heard, width=300))
    assert f"Continuing after step {steps} of 32" in heard.getvalue()

    with torchrun(settings, tmp_path) as process:
        said, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    assert said.count(f"Continuing after step {steps} of 32 (to the bit)") == 1
    assert run.status() == "finished"
    for other_run in (run, RunFolder(tmp_path / "alone")):
        lines = other_run.read_metrics()
        assert [line["step"] for line in lines] == list(range(1, 33))
        for ours, theirs in zip(lines, whole.read_metrics(), strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert (_encoder(other_run.path) - _encoder(whole.path)).norm() < 1e-5 * _encoder(whole.path).norm()


def test_what_every_process_finds_wrong_is_said_once(make: Make, tmp_path: Path) -> None:
    settings = replace(make(), data=DataSettings(path=str(tmp_path / "nowhere")))
    with torchrun(settings, tmp_path) as process:
        said, errors = process.communicate(timeout=SECONDS)
    assert _exit_codes(errors) == {0: 3, 1: 3}, errors
    assert errors.count("is neither a file or folder that exists") == 1
    assert said == ""
    assert not (tmp_path / "run").exists()


def test_a_step_that_one_process_spoils_is_skipped_by_both(make: Make, tmp_path: Path) -> None:
    with torchrun(replace(make("simclr"), threads=1), tmp_path, "poisoned") as process:
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    seen = [torch.load(tmp_path / f"seen-{rank}.pt") for rank in range(2)]
    for weights in seen:
        assert len(weights) == 12
        for name, before in weights[5].items():
            if "num_batches_tracked" not in name:
                assert torch.equal(before, weights[6][name]), name
        assert not torch.equal(weights[6]["projection.0.weight"], weights[7]["projection.0.weight"])
    for name, value in seen[0][11].items():
        assert torch.equal(value, seen[1][11][name]), name
    record = json.loads((tmp_path / "run" / "nonfinite-5.json").read_text())
    assert len(set(record["images"])) == 16  # of both
    events = [line["event"] for line in RunFolder(tmp_path / "run").read_metrics() if "event" in line]
    assert len(events) == 1
    assert "Step 5 was skipped" in events[0]


def test_a_collapse_ends_both_and_is_said_once(make: Make, tmp_path: Path) -> None:
    settings = make("simclr", epochs=40, on_collapse="stop", save_every_steps=1000, threads=1)
    settings = replace(settings, optimizer=replace(settings.optimizer, lr=0.5))
    with torchrun(settings, tmp_path, "pulled") as process:
        _, errors = process.communicate(timeout=SECONDS)
    assert _exit_codes(errors) == dict.fromkeys(range(2), NumericsError.exit_code), errors
    assert errors.count("The embeddings have collapsed") == 1
    run = RunFolder(tmp_path / "run")
    assert run.status() == "failed"
    assert len(run.read_metrics()) < 160


if __name__ == "__main__":
    worker(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])

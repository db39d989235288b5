"""`compressl pretrain` under torchrun: two processes train as one, and stop, fail and go on together."""

from __future__ import annotations

import contextlib
import io
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

import pytest
import safetensors.torch
import torch
from rich.console import Console

from compressl.runs import RunFolder
from compressl.settings.pretrain import DataSettings, OptimizerSettings, PretrainSettings
from compressl.settings.toml import to_toml
from compressl.training.loop import pretrain

Make = Callable[..., PretrainSettings]

SECONDS = 90  # for one command; a machine with two cores that does nothing else needs about 6
pytestmark = [
    pytest.mark.timeout(5 * SECONDS),
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes of torchrun in /proc"),
]


@contextmanager
def torchrun(settings: PretrainSettings, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The command on two processes; whatever happens, none of them is left running."""
    config = folder / "config.toml"
    config.write_text(to_toml(settings))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "compressl", "pretrain", "--config", str(config), "--out", str(settings.out)]
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
    return [int(pid) for pid in children if "compressl" in Path(f"/proc/{pid}/cmdline").read_text()]


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

    with torchrun(settings, tmp_path) as process:
        deadline = time.monotonic() + SECONDS
        while len(run.read_metrics()) < 5 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        main = int((run.path / "run.lock").read_text().split()[1])
        (other,) = set(_workers(process)) - {main}
        os.kill(other, signal.SIGTERM)
        said, errors = process.communicate(timeout=SECONDS)
    assert _exit_codes(errors) == {0: 75, 1: 75}, errors
    assert errors.count("Run the same command again") == 1
    assert said.count("8 epochs of 4 steps") == 1
    assert run.status() == "interrupted"
    steps = len(run.read_metrics())
    assert steps < 32

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

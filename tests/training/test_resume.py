"""A run that was interrupted anywhere ends as one that was not, to the bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from compressl.errors import CheckpointError, DataError, Interrupted
from compressl.methods import METHODS
from compressl.runs import RunFolder
from compressl.settings.pretrain import OptimizerSettings, PretrainSettings
from compressl.settings.toml import to_toml
from compressl.training import checkpoint
from compressl.training.loop import pretrain

from .interruptions import Killed, assert_same_runs, kill_after

Make = Callable[..., PretrainSettings]


@pytest.fixture(scope="module")
def runs(make_in: Callable[[Path], Make], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``whole``, an undisturbed run, and ``after-1`` to ``after-12``: what its process would have left,
    had it been gone after that step."""
    folder = tmp_path_factory.mktemp("runs")
    whole = make_in(folder)(out="whole")
    pretrain(whole, after_step=lambda step: shutil.copytree(folder / "whole", folder / f"after-{step}"))
    return folder


@pytest.mark.parametrize("steps", range(1, 13))
def test_interrupted_after_any_step(runs: Path, make_in: Callable[[Path], Make], steps: int) -> None:
    done: list[int] = []
    pretrain(make_in(runs)(out=f"after-{steps}"), after_step=done.append)
    assert done == list(range(steps - steps % 4 + 1, 13))
    assert_same_runs(runs / "whole", runs / f"after-{steps}")


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("optimizer", ["sgd", "lars", "adamw"])
def test_every_method_and_optimizer(check_resume: Callable[..., None], method: str, optimizer: str) -> None:
    check_resume(6, method=method, epochs=2, optimizer=OptimizerSettings(name=optimizer))  # type: ignore[arg-type]


def test_several_interruptions_within_an_epoch(make: Make, tmp_path: Path, runs: Path) -> None:
    for steps in (5, 6, 7, 9):
        with pytest.raises(Killed):
            pretrain(make(save_every_steps=1), after_step=kill_after(steps))
    pretrain(make(save_every_steps=1))
    assert_same_runs(runs / "whole", tmp_path / "run")


def test_bf16_resumes_to_the_bit_too(check_resume: Callable[..., None]) -> None:
    check_resume(7, precision="bf16")


def test_the_images_may_lie_in_memory_or_be_streamed(make: Make, tmp_path: Path, runs: Path) -> None:
    pretrain(replace(make(), data=replace(make().data, device="no")))
    assert_same_runs(runs / "whole", tmp_path / "run")  # where they lie in memory


def test_other_settings_are_refused_by_name(make: Make) -> None:
    with pytest.raises(Killed):
        pretrain(make(), after_step=kill_after(5))
    with pytest.raises(CheckpointError, match=r"seed was 0 and is 1"):
        pretrain(make(seed=1))
    pretrain(make(log_every=7, keep=5))  # what changes neither weights nor order may differ


def test_other_images_are_refused(make: Make, images: Path) -> None:
    with pytest.raises(Killed):
        pretrain(make(), after_step=kill_after(5))
    np.save(images, np.load(images)[::-1].copy())
    with pytest.raises(DataError, match="not those that the run"):
        pretrain(make())
    pretrain(make(allow_data_change=True))


def _launch(settings: PretrainSettings, tmp_path: Path) -> subprocess.Popen[str]:
    config = tmp_path / "config.toml"
    config.write_text(to_toml(settings))
    command = [
        sys.executable,
        "-m",
        "compressl",
        "pretrain",
        "--config",
        str(config),
        "--threads",
        "1",
        "--out",
        str(settings.out),
    ]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def _wait_for_lines(run: Path, process: subprocess.Popen[str], lines: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if len(RunFolder(run).read_metrics()) >= lines:
            return
        time.sleep(0.01)
    pytest.fail(f"the run wrote no {lines} lines: {process.communicate()}")


def test_killed_processes_and_a_polite_stop(make: Make, tmp_path: Path) -> None:
    """SIGKILL, then SIGTERM, then to the end: the same as undisturbed, in processes of their own."""
    long = {"epochs": 30, "save_every_steps": 7, "threads": 1}
    before = torch.get_num_threads()
    try:
        pretrain(make(out="whole", **long))
    finally:
        torch.set_num_threads(before)
    settings = make(out="parts", **long)
    process = _launch(settings, tmp_path)
    _wait_for_lines(tmp_path / "parts", process, 20)
    process.kill()
    process.communicate()
    process = _launch(settings, tmp_path)
    _wait_for_lines(tmp_path / "parts", process, 40)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "Run the same command again" in errors
    assert RunFolder(tmp_path / "parts").status() == "interrupted"
    process = _launch(settings, tmp_path)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_an_interrupted_run_is_continued_even_with_overwrite(make: Make, tmp_path: Path) -> None:
    """The same command again, as a scheduler gives it, must not begin anew each time."""

    def interrupt(step: int) -> None:
        if step == 6:
            os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.raises(Interrupted):
        pretrain(make(overwrite=True), after_step=interrupt)
    steps: list[int] = []
    pretrain(make(overwrite=True), after_step=steps.append)
    assert steps[0] == 8


def test_a_second_interrupt_leaves_at_once(make: Make) -> None:
    def interrupt(step: int) -> None:
        if step == 6:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        pretrain(make(), after_step=interrupt)


def test_a_signal_saves_the_very_step(make: Make, tmp_path: Path) -> None:
    def interrupt(step: int) -> None:
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="after step 7 of 12"):
        pretrain(make(), after_step=interrupt)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"
    assert checkpoint.checkpoints(tmp_path / "run" / "checkpoints")[0].name == "step-000000007"
    pretrain(make())

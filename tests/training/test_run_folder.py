"""What a run leaves behind, and how it treats what is there."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressl.errors import CheckpointError, DataError, ResourceError
from compressl.methods.saved import load_heads
from compressl.models import load_encoder
from compressl.runs import RunFolder, claim, lock
from compressl.settings.pretrain import DataSettings, PretrainSettings
from compressl.training import checkpoint
from compressl.training.loop import pretrain

Make = Callable[..., PretrainSettings]


class Stop(BaseException):
    pass


def _stop(step: int) -> None:
    raise Stop


def test_everything_that_later_verbs_need(make: Make, tmp_path: Path) -> None:
    run = pretrain(make("byol"), sources={"epochs": "flag"})
    assert run.status() == "finished"
    config = tomllib.loads(run.config.read_text())
    assert config["epochs"] == 3
    assert "epochs = 3  # flag" in run.config.read_text()
    assert config["method"] == {"name": "byol", "hidden": 16, "dim": 8, "weight": 1.0, "ema": 0.99}
    assert json.loads(run.environment.read_text())["precision"] == "fp32"
    lines = run.read_metrics()
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert {"loss", "regression", "alignment", "lr", "gradient_norm", "time"} <= set(lines[-1])
    assert (run.path / "views.png").read_bytes().startswith(b"\x89PNG")
    _encoder, card = load_encoder(run.path)
    assert card.size == 16
    assert card.num_features == 64
    trained = checkpoint.load(checkpoint.checkpoints(run.checkpoints)[0])["method"]
    method = load_heads(run.path, _encoder, 64, make("byol").method)
    assert method is not None
    assert all(torch.equal(tensor, trained[name]) for name, tensor in method.state_dict().items())
    assert (run.path / "run.lock").read_text() == ""


def test_a_finished_run_is_not_replaced_unasked(make: Make, tmp_path: Path) -> None:
    pretrain(make())
    before = (tmp_path / "run" / "encoder.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="finished run"):
        pretrain(make(seed=1))
    assert (tmp_path / "run" / "encoder.safetensors").read_bytes() == before
    (tmp_path / "run" / "notes.txt").write_text("mine")
    pretrain(make(seed=1, overwrite=True))
    assert (tmp_path / "run" / "encoder.safetensors").read_bytes() != before
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_a_folder_with_other_things_is_left_alone(make: Make, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(CheckpointError, match="holds no run of ours"):
            pretrain(make(overwrite=overwrite))
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_a_run_that_cannot_begin_leaves_nothing(make: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        pretrain(replace(make(), data=DataSettings(path=str(tmp_path / "nowhere"))))
    with pytest.raises(DataError, match="fewer than one batch of 65"):
        pretrain(make(batch_size=65))
    assert not (tmp_path / "run").exists()


HOLDER = """
import sys, time
from pathlib import Path
from compressl.runs import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_keeps_a_second_process_out_until_the_first_is_gone(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(CheckpointError, match=f"in use by process {other.pid} on {socket.gethostname()}"),
            lock(tmp_path),
        ):
            pass
    finally:
        other.kill()
        other.wait()
    with lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / "run.lock").read_text()


def test_overwrite_removes_nothing_before_it_can_begin(make: Make, tmp_path: Path) -> None:
    pretrain(make())
    before = (tmp_path / "run" / "encoder.safetensors").read_bytes()
    with pytest.raises(DataError):
        pretrain(replace(make(overwrite=True), data=DataSettings(path=str(tmp_path / "typo"))))
    assert (tmp_path / "run" / "encoder.safetensors").read_bytes() == before
    assert RunFolder(tmp_path / "run").status() == "finished"


def test_overwrite_replaces_what_cannot_be_continued(make: Make, tmp_path: Path) -> None:
    def stop(step: int) -> None:
        if step == 6:
            raise Stop

    with pytest.raises(Stop):
        pretrain(make(), after_step=stop)
    steps: list[int] = []
    pretrain(make(seed=1, overwrite=True), after_step=steps.append)
    assert steps[0] == 1


def test_a_wrong_flag_does_not_change_the_record_of_a_run(make: Make, tmp_path: Path) -> None:
    from compressl.errors import Interrupted

    def interrupt(step: int) -> None:
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        pretrain(make(), after_step=interrupt)
    with pytest.raises(CheckpointError, match="batch_size was 16 and is 8"):
        pretrain(make(batch_size=8))
    assert RunFolder(tmp_path / "run").status() == "interrupted"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_metrics_on_a_full_disk_are_one_sentence(tmp_path: Path) -> None:
    from compressl.training.metrics import MetricsWriter

    writer = MetricsWriter(RunFolder(tmp_path), resume_step=0, tensorboard=False)
    writer.file.close()
    writer.file = open("/dev/full", "w")  # noqa: PTH123, SIM115
    with pytest.raises(ResourceError, match="disk is full"):
        writer.write({"step": 1, "epoch": 0})
    writer.close()


def test_numbers_that_are_not_finite_are_json_all_the_same(tmp_path: Path) -> None:
    from compressl.training.metrics import MetricsWriter

    writer = MetricsWriter(RunFolder(tmp_path), resume_step=0, tensorboard=False)
    writer.write({"step": 1, "epoch": 0, "loss": float("nan")})
    writer.close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "epoch": 0, "loss": null}\n'


def test_tensorboard_events_are_written_if_it_is_there(make: Make, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    pretrain(make(tensorboard=True, epochs=1))
    assert list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))


def test_a_compiler_that_fails_is_a_sentence(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    import torch
    from rich.console import Console

    def broken(self: torch.nn.Module, *args: object, **kwargs: object) -> None:
        def fail(*inputs: object) -> None:
            raise RuntimeError("no compiler found\nand more")

        self._compiled_call_impl = fail

    monkeypatch.setattr(torch.nn.Module, "compile", broken)
    shown = io.StringIO()
    pretrain(make(compile=True, out="compiled"), console=Console(file=shown, width=200))
    assert "torch.compile of the encoder is off: RuntimeError: no compiler found" in shown.getvalue()
    monkeypatch.undo()
    pretrain(make())
    ours, theirs = ((tmp_path / name / "encoder.safetensors").read_bytes() for name in ("compiled", "run"))
    assert ours == theirs, "the attempt left a trace"


def test_out_may_not_be_a_file(make: Make, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(CheckpointError, match="is a file"):
        claim(tmp_path / "run", overwrite=True)


def test_a_disk_that_fills_during_training(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second checkpoint does not fit: exit code 6, the first is intact, and the run goes on from it later."""
    from compressl.training import checkpoint

    save = checkpoint.save

    def full(folder: Path, step: int, state: Any, keep: int = 2) -> Path:
        if step > 4:
            monkeypatch.setattr(os, "fsync", _no_space)
        return save(folder, step, state, keep)

    def _no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(ResourceError, match="disk is full") as error:
        pretrain(make())
    assert error.value.exit_code == 6
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000000004"]
    assert pretrain(make()).status() == "finished"


def test_labels_give_an_online_score(make: Make, images: Path, tmp_path: Path) -> None:
    np.save(images.with_name("images.labels.npy"), np.arange(64) % 2)
    run = pretrain(make(knn_every=1))
    assert [line["step"] for line in run.read_metrics() if "knn" in line] == [4, 8, 12]
    assert all(0 <= line["knn"] <= 1 for line in run.read_metrics() if "knn" in line)


def test_accumulation_sums_to_the_gradient_of_the_whole_batch(make: Make, tmp_path: Path) -> None:
    """BYOL's loss is a mean over images; without batch statistics four passes are one."""
    import torch

    from compressl.training.loop import _forward_backward
    from compressl.training.setup import prepare

    gradients = []
    for passes in (1, 4):
        training = prepare(make("byol", accumulate=passes))
        training.method.eval()
        views = [torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(v)) for v in range(2)]
        loss, _ = _forward_backward(training, views, 0)
        gradients.append([loss, *(p.grad for p in training.method.parameters() if p.grad is not None)])
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, parts)


def test_metrics_hold_no_step_twice_after_a_cut_line(make: Make, tmp_path: Path) -> None:
    def stop(step: int) -> None:
        if step == 6:
            raise Stop

    with pytest.raises(Stop):
        pretrain(make(), after_step=stop)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "ep')
    run = pretrain(make())
    assert [line["step"] for line in run.read_metrics()] == list(range(1, 13))

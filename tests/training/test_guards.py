"""Values that are not finite, and embeddings that are all alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from compressl.errors import NumericsError
from compressl.methods.simclr import SimCLR
from compressl.runs import RunFolder
from compressl.settings.pretrain import PretrainSettings
from compressl.training import guards
from compressl.training.loop import pretrain

Make = Callable[..., PretrainSettings]


def _poison(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> list[dict[str, Tensor]]:
    """Make the loss of some steps NaN; returns the weights seen at the start of every step."""
    forward, seen = SimCLR.forward, []

    def poisoned(self: SimCLR, views: Any, generator: Any = None) -> Any:
        seen.append({name: value.clone() for name, value in self.state_dict().items()})
        if len(seen) - 1 in steps:
            views = [view * float("nan") for view in views]
        return forward(self, views, generator)

    monkeypatch.setattr(SimCLR, "forward", poisoned)
    return seen


def test_a_poisoned_step_touches_nothing_and_names_its_images(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _poison(monkeypatch, {5})
    pretrain(make("simclr"))
    before, after = seen[5], seen[6]
    for name in before:
        if "num_batches_tracked" not in name:
            assert torch.equal(before[name], after[name]), name
    assert not torch.equal(seen[6]["projection.0.weight"], seen[7]["projection.0.weight"])
    record = json.loads((tmp_path / "run" / "nonfinite-5.json").read_text())
    assert len(record["images"]) == 16
    assert all("images" in name for name in record["images"])
    events = [line["event"] for line in RunFolder(tmp_path / "run").read_metrics() if "event" in line]
    assert len(events) == 1
    assert "Step 5 was skipped" in events[0]


def test_four_in_a_row_stop_the_run_with_a_good_checkpoint(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _poison(monkeypatch, {5, 6, 7, 8})
    with pytest.raises(NumericsError, match="4 in a row"):
        pretrain(make("simclr"))
    assert RunFolder(tmp_path / "run").status() == "failed"
    assert (tmp_path / "run" / "checkpoints" / "step-000000008").is_dir()
    monkeypatch.undo()
    pretrain(make("simclr"))
    assert RunFolder(tmp_path / "run").status() == "finished"


def test_one_percent_is_too_much(tmp_path: Path) -> None:
    guard = guards.NonFiniteGuard()

    def skip(step: int) -> str | None:
        return guard.check(False, step=step, folder=tmp_path, images=lambda: ["a"], terms=dict)

    for step in (10, 250):
        assert guard.check(True, step=step - 1, folder=tmp_path, images=list, terms=dict) is None
        assert "skipped" in str(skip(step))
    guard.check(True, step=260, folder=tmp_path, images=list, terms=dict)
    with pytest.raises(NumericsError, match="3 steps up to 270"):
        skip(270)


def test_spread_of_known_embeddings() -> None:
    generator = torch.Generator().manual_seed(0)
    uniform = guards.spread(torch.randn(4096, 64, generator=generator))
    assert uniform.std == pytest.approx(1, abs=0.02)
    assert uniform.cosine == pytest.approx(0, abs=0.01)
    assert uniform.effective_rank == pytest.approx(64, rel=0.02)
    alike = guards.spread(torch.ones(64, 8))
    assert alike.std == pytest.approx(0, abs=1e-4)
    assert alike.cosine == pytest.approx(1, abs=1e-4)
    assert alike.effective_rank == pytest.approx(1, abs=1e-3)


def test_the_alarm_waits_and_speaks_once() -> None:
    alarm, bad, good = guards.CollapseAlarm(), guards.Spread(0.1, 0.99, 1.0), guards.Spread(0.7, 0.42, 20.0)
    assert [alarm.check(bad, step) for step in (50, 100)] == [None, None]
    assert alarm.check(good, 150) is None
    assert [alarm.check(bad, step) for step in (200, 250)] == [None, None]
    assert "collapsed at step 300" in str(alarm.check(bad, 300))
    assert alarm.check(bad, 350) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_embeddings_that_are_not_numbers_count_as_collapsed(value: float) -> None:
    alarm = guards.CollapseAlarm(patience=1)
    embeddings = torch.randn(8, 4)
    embeddings[3, 2] = value
    assert alarm.check(guards.spread(embeddings), 50) is not None


def test_a_resumed_alarm_that_has_spoken_can_still_stop() -> None:
    alarm = guards.CollapseAlarm(in_a_row=3, raised=True)
    assert alarm.check(guards.Spread(0.1, 0.99, 1.0), 50) is None
    assert alarm.sounding


def test_a_collapsing_run_is_caught(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that pulls everything together: embeddings alike within a few steps."""

    def pull(self: SimCLR, views: Any, generator: Any = None) -> Any:
        z = self.embed(torch.cat(list(views)))
        return (z - 1).square().mean(), {}

    monkeypatch.setattr(SimCLR, "forward", pull)
    monkeypatch.setattr("compressl.training.loop.ALARM_EVERY", 5)
    from dataclasses import replace

    settings = make("simclr", epochs=40, on_collapse="stop", save_every_steps=1000)
    settings = replace(settings, optimizer=replace(settings.optimizer, lr=0.5))
    with pytest.raises(NumericsError, match="collapsed"):
        pretrain(settings)


@pytest.mark.parametrize("method", ["simclr", "c-simclr", "byol", "c-byol"])
def test_the_methods_set_off_no_alarm(make: Make, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressl.training.loop.ALARM_EVERY", 2)
    pretrain(make(method))
    lines = RunFolder(tmp_path / "run").read_metrics()
    assert [line for line in lines if "event" in line] == []
    assert sum("embedding_std" in line for line in lines) == 6

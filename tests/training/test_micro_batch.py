"""Trainings whose encoder takes each batch in parts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressl import distributed
from compressl.errors import CheckpointError, NumericsError, UsageError
from compressl.methods.cbyol import CBYOL
from compressl.methods.simclr import SimCLR
from compressl.models import load_encoder
from compressl.settings.pretrain import PretrainSettings
from compressl.settings.views import ViewsSettings
from compressl.training import loop
from compressl.training.loop import pretrain
from compressl.training.setup import prepare

from .interruptions import Killed, end, kill_after

Make = Callable[..., PretrainSettings]


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "c-simclr"},
        {"method": "c-byol", "precision": "bf16"},
        {"method": "swav", "views": ViewsSettings(local=2)},
    ],
    ids=lambda fields: fields["method"],
)
def test_it_resumes_to_the_bit(check_resume: Callable[..., None], fields: dict[str, Any]) -> None:
    check_resume(6, micro_batch=4, **fields)


def test_a_micro_batch_of_the_whole_batch_is_none(make: Make, tmp_path: Path) -> None:
    for out, images in (("none", None), ("all", 16), ("part", 8)):
        pretrain(make(out=out, micro_batch=images, epochs=1))
    (none, lines), (everything, other_lines), (_, part_lines) = (end(tmp_path / o) for o in ("none", "all", "part"))
    assert all(torch.equal(value, everything["method"][name]) for name, value in none["method"].items())
    assert lines == other_lines != part_lines  # batch norm sees other images together
    encoder, _ = load_encoder(tmp_path / "part")
    assert encoder(torch.zeros(3, 3, 16, 16)).shape[0] == 3


def test_another_micro_batch_is_another_run(make: Make) -> None:
    with pytest.raises(Killed):
        pretrain(make(micro_batch=4), after_step=kill_after(5))
    with pytest.raises(CheckpointError, match=r"micro_batch was 4 and is 8"):
        pretrain(make(micro_batch=8))


def test_encoder_and_slow_copy_never_see_more_than_a_micro_batch(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[str, int]] = set()
    forward = CBYOL.forward

    def watched(self: CBYOL, views: Any, generator: Any = None) -> Any:
        hooks = [
            module.register_forward_hook(lambda m, inputs, output, name=name: seen.add((name, len(output))))
            for name, module in (("encoder", self.encoder), ("slow", self.slow_encoder), ("head", self.projection))
        ]
        result = forward(self, views, generator)
        for hook in hooks:
            hook.remove()
        return result

    monkeypatch.setattr(CBYOL, "forward", watched)
    pretrain(make("c-byol", micro_batch=4, epochs=1))
    assert seen == {("encoder", 4), ("slow", 4), ("head", 16)}


def test_a_skipped_step_leaves_weights_and_statistics(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[dict[str, Tensor]] = []
    forward = SimCLR.forward

    def poisoned(self: SimCLR, views: Any, generator: Any = None) -> Any:
        states.append({name: value.clone() for name, value in self.state_dict().items()})
        return forward(self, [view * (float("nan") if len(states) == 6 else 1.0) for view in views], generator)

    monkeypatch.setattr(SimCLR, "forward", poisoned)
    pretrain(make("simclr", micro_batch=4))
    for name, before in states[5].items():
        if "num_batches_tracked" not in name:
            assert torch.equal(before, states[6][name]), name
    assert len(json.loads((tmp_path / "run" / "nonfinite-5.json").read_text())["images"]) == 16


def test_a_collapse_is_seen(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "ALARM_EVERY", 5)
    monkeypatch.setattr(
        SimCLR, "forward", lambda self, views, generator=None: ((self.embed(torch.cat(views)) - 1).square().mean(), {})
    )
    settings = make("simclr", epochs=40, on_collapse="stop", micro_batch=4)
    with pytest.raises(NumericsError, match="have collapsed"):
        pretrain(replace(settings, optimizer=replace(settings.optimizer, lr=0.5)))


def test_a_compiled_encoder_has_the_same_gradient(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compiled(self, backend="aot_eager", **options))
    views = [torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(v)) for v in range(2)]
    gradients = []
    for choice in (False, True):
        training = prepare(make("simclr", micro_batch=4, compile=choice))
        assert training.notes == ()  # or it would say why it is off
        loop._forward_backward(training, views, 0)
        gradients.append(torch.cat([p.grad.flatten() for p in training.method.parameters() if p.grad is not None]))
    plain, other = gradients
    assert (plain - other).norm() < 1e-4 * plain.norm()


def test_processes_share_a_micro_batch_or_say_why_not(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    with pytest.raises(UsageError, match="micro-batch of 2 images cannot be shared by 4 processes"):
        prepare(make(micro_batch=2))

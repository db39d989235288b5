"""Views that grow: every part of the training has its size, wherever it is interrupted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compressl.data import batches
from compressl.errors import UsageError
from compressl.models import load_encoder
from compressl.settings.pretrain import PretrainSettings
from compressl.settings.views import ViewsSettings
from compressl.training.loop import pretrain
from compressl.training.setup import prepare

from .interruptions import Killed, assert_same_runs, kill_after

Make = Callable[..., PretrainSettings]


def test_each_part_of_the_training_has_its_size(make: Make) -> None:
    settings = make("swav", epochs=5, views=ViewsSettings(start_size=8, local=1, local_size=8))
    training = prepare(settings)
    options: dict[str, Any] = {"batch_size": 16, "seed": 0, "device": "cpu"}
    seen = []
    with batches(training.packed, start_step=0, total_steps=training.total_steps, **options) as loader:
        while (found := training.look(loader)) is not None:
            seen.append([view.shape[-1] for view in found[1]])
    sizes = [(8, 4), (10, 5), (12, 6), (14, 7), (16, 8)]
    assert seen == [[size, size, local] for size, local in sizes for _ in range(4)]


def test_an_interrupted_training_goes_on_with_the_same_sizes(make: Make, tmp_path: Path) -> None:
    fields = {"views": ViewsSettings(start_size=8), "save_every_steps": 1}
    pretrain(make(out="whole", **fields))
    for steps in (4, 9):
        with pytest.raises(Killed):
            pretrain(make(out="parts", **fields), after_step=kill_after(steps))
    pretrain(make(out="parts", **fields))
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")
    assert load_encoder(tmp_path / "whole")[1].size == 16, "it is used at the full size"


def test_blur_keeps_its_look() -> None:
    first, *_, last = ViewsSettings(recipe="byol", start_size=112).stages(224)
    assert first[0].blur_max_sigma == last[0].blur_max_sigma / 2
    assert first[0].blur == last[0].blur


def test_views_that_would_shrink_are_refused(make: Make) -> None:
    with pytest.raises(UsageError, match="cannot grow from 32 to 16 px"):
        prepare(make(views=ViewsSettings(start_size=32)))


def test_graphs_are_off_where_there_are_none(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: modes.append(options["mode"]))
    said: list[str] = []
    training = prepare(make(compile=True, cuda_graphs=True, views=ViewsSettings(start_size=8)), say=said.append)
    assert said == ["Compiling the encoder for 5 sizes of views; each may take a minute."]
    assert modes == [None]
    assert training.compiled
    assert not training.graphs
    assert training.notes[-1] == "CUDA graphs are off: they need a CUDA device, one process and a compiled encoder."

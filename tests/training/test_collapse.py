"""SimSiam without its stop-gradient collapses, and the alarm says so; with it, all is well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressl.errors import NumericsError
from compressl.runs import RunFolder
from compressl.settings.encoder import EncoderSettings
from compressl.settings.pretrain import DataSettings, PretrainSettings
from compressl.settings.views import ViewsSettings
from compressl.training.loop import pretrain

STEPS = 80


@pytest.fixture
def simsiam(make: Callable[..., PretrainSettings], tmp_path: Path) -> Callable[..., PretrainSettings]:
    """A training on views of 4 px, in the large batch that a full collapse needs: batch norm keeps the mean of the
    projections at zero, so some images must oppose the rest, and the cosines' mean ends at (N - 4) / N, not 1."""
    images = tmp_path / "many.npy"
    np.save(images, np.random.default_rng(0).integers(0, 256, (256, 4, 4, 3), dtype=np.uint8))

    def build(out: str, stop_gradient: bool) -> PretrainSettings:
        numbers: dict[str, Any] = {"hidden": 64, "dim": 64, "bottleneck": 16, "stop_gradient": stop_gradient}
        base = make("simsiam", out=out, numbers=numbers, epochs=STEPS, batch_size=256, save_every_steps=1000)
        return replace(
            base,
            data=DataSettings(path=str(images)),
            encoder=EncoderSettings(width=0.0625),
            views=ViewsSettings(size=4, recipe="crop"),
            optimizer=replace(base.optimizer, lr=1.0, warmup_epochs=0.0),
            on_collapse="stop",
        )

    return build


def test_the_stop_gradient_is_what_prevents_the_collapse(
    simsiam: Callable[..., PretrainSettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("compressl.training.loop.ALARM_EVERY", 2)
    with pytest.raises(NumericsError, match="collapsed"):
        pretrain(simsiam("without", stop_gradient=False))
    last = RunFolder(tmp_path / "without").read_metrics()[-1]
    assert last["step"] < STEPS
    alike = last["embedding_std"] < 0.2 or last["embedding_cosine"] > 0.95
    assert alike or last["embedding_effective_rank"] < 1.5  # all one, or all on one line
    assert "collapsed" in last["event"]

    pretrain(simsiam("with", stop_gradient=True))  # the alarm would stop it
    lines = RunFolder(tmp_path / "with").read_metrics()
    assert lines[-1]["step"] == STEPS
    assert not any("event" in line for line in lines)
    assert lines[-1]["embedding_std"] > 0.5

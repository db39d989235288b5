"""A training so small that it takes a second: 64 images of 16 px, 12 steps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import small_settings

from compressl.settings.encoder import EncoderSettings
from compressl.settings.pretrain import DataSettings, PretrainSettings
from compressl.training.loop import pretrain

from .interruptions import assert_same_runs

Make = Callable[..., PretrainSettings]


@pytest.fixture(scope="session")
def make_in() -> Callable[[Path], Make]:
    """``make_in(folder)``: what ``make`` gives, for images and runs in this folder."""

    def within(folder: Path) -> Make:
        coarse = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 3), dtype=np.uint8)
        np.save(folder / "images.npy", coarse.repeat(4, 1).repeat(4, 2))

        def build(
            method: str = "c-simclr", out: str = "run", numbers: dict[str, Any] | None = None, **fields: Any
        ) -> PretrainSettings:
            base = PretrainSettings(
                data=DataSettings(path=str(folder / "images.npy")),
                method=small_settings(method, **(numbers or {})),
                encoder=EncoderSettings(width=0.125),
                out=folder / out,
                epochs=3,
                batch_size=16,
                log_every=1,
                save_every_steps=4,
                precision="fp32",
                tensorboard=False,
            )
            return replace(base, **fields)

        return build

    return within


@pytest.fixture
def make(make_in: Callable[[Path], Make], tmp_path: Path) -> Make:
    """Settings of the small training; keywords replace fields, ``method`` is a name."""
    return make_in(tmp_path)


@pytest.fixture
def images(make: Make) -> Path:
    """The file that the small training learns from."""
    return Path(make().data.path)


@pytest.fixture
def check_resume(make: Make, tmp_path: Path) -> Callable[..., None]:
    """``check_resume(6, ...)``: a training of these settings whose process is gone after 6 steps ends, when it is
    started again, as one that nothing disturbed."""

    def check(steps: int, **fields: Any) -> None:
        whole, parts = make(out="whole", **fields), make(out="parts", **fields)

        def leave(step: int) -> None:
            if step == steps:  # everything is on record: this is what such a process leaves
                shutil.copytree(tmp_path / "whole", tmp_path / "parts")

        pretrain(whole, after_step=leave)
        done: list[int] = []
        pretrain(parts, after_step=done.append)
        assert done[0] == steps - steps % parts.save_every_steps + 1  # type: ignore[operator]
        assert_same_runs(tmp_path / "whole", tmp_path / "parts")

    return check

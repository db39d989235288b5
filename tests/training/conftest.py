"""A training so small that it takes a second: 64 images of 16 px, 12 steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import small_settings

from compressl.settings.encoder import EncoderSettings
from compressl.settings.pretrain import DataSettings, PretrainSettings

Make = Callable[..., PretrainSettings]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "images.npy"
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (64, 4, 4, 3), dtype=np.uint8)
    np.save(path, coarse.repeat(4, 1).repeat(4, 2))
    return path


@pytest.fixture
def make(images: Path, tmp_path: Path) -> Make:
    """Settings of the small training; keywords replace fields, ``method`` is a name."""

    def build(
        method: str = "c-simclr", out: str = "run", numbers: dict[str, Any] | None = None, **fields: Any
    ) -> PretrainSettings:
        base = PretrainSettings(
            data=DataSettings(path=str(images)),
            method=small_settings(method, **(numbers or {})),
            encoder=EncoderSettings(width=0.125),
            out=tmp_path / out,
            epochs=3,
            batch_size=16,
            log_every=1,
            save_every_steps=4,
            precision="fp32",
            tensorboard=False,
        )
        return replace(base, **fields)

    return build

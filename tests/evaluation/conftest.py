"""A small ground: 40 training and 40 test images whose class is a colour, and a narrow encoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressl.data import ArraySource, PackedImages, pack
from compressl.evaluation.ground import Ground
from compressl.evaluation.labelled import Labelled
from compressl.models import EncoderCard, create_encoder
from compressl.settings.encoder import EncoderSettings
from compressl.settings.evaluate import EvaluateSettings
from compressl.settings.views import ViewsSettings

CARD = EncoderCard("resnet18", 0.125, True, 64, 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
NAMES = ["red", "green", "blue", "grey"]


def coloured(count: int, seed: int, classes: int = 4) -> PackedImages:
    """16 x 16 px images of noise; class c < 3 has more of channel c, class 3 of none."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = random.integers(0, 120, (count, 16, 16, 3))
    for channel in range(3):
        images[labels == channel, :, :, channel] += 60
    source = ArraySource(images.astype(np.uint8), labels=labels, name=f"colours {seed}")
    return pack(source, view_size=16, cache=None)


@pytest.fixture(scope="session")
def new_ground(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ground]:
    """As ``make_ground``, for what several tests share: features are kept in a folder of its own."""

    def make(**fields: Any) -> Ground:
        given = {"k": 5, "resamples": 200, "weight_decays": (1e-3, 1e-1), "batch_size": 32, "views": 2, "draws": 2}
        folder = fields.pop("folder", None) or tmp_path_factory.mktemp("ground")
        settings = EvaluateSettings(
            run=folder, data="colours", precision="fp32", cache=folder / "cache", **(given | fields)
        )
        encoder = create_encoder(EncoderSettings("resnet18", width=0.125, zero_init=False), 16, seed=5)
        train, test = Labelled.of(coloured(40, 0), "training"), Labelled.of(coloured(40, 1), "test")
        views = ViewsSettings(recipe="small")
        return Ground.of(encoder, CARD, train, test, settings, torch.device("cpu"), class_names=NAMES, views=views)

    return make


@pytest.fixture
def make_ground(new_ground: Callable[..., Ground], tmp_path: Path) -> Callable[..., Ground]:
    """Call it with fields of EvaluateSettings to have a ground with these settings."""
    return partial(new_ground, folder=tmp_path)


@pytest.fixture
def ground(make_ground: Callable[..., Ground]) -> Ground:
    return make_ground()

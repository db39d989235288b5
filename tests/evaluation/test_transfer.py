"""Accuracy on other images: their own classes and splits, and a sentence for what cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressl.errors import DataError
from compressl.evaluation import transfer
from compressl.evaluation.ground import Ground

Make = Callable[..., Ground]


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """A folder of 3 classes, another number than the evaluation's own data has."""
    random = np.random.default_rng(0)
    for shade, name in ((40, "dark"), (120, "middle"), (200, "bright")):
        (tmp_path / "shades" / name).mkdir(parents=True)
        for number in range(15):
            pixels = random.integers(shade - 20, shade + 20, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "shades" / name / f"{number}.png")
    return tmp_path / "shades"


def test_other_images_are_measured_with_their_own_classes_and_splits(make_ground: Make, shades: Path) -> None:
    ground = make_ground(transfer=(f"shades={shades}",), shots=(1, 12), fractions=())
    record = json.loads(json.dumps(transfer.measure(ground), allow_nan=False))
    assert set(record["shades"]["data"]["classes"]) == {"bright", "dark", "middle"}
    assert (record["shades"]["data"]["train_images"], record["shades"]["data"]["test_images"]) == (36, 9)
    assert set(record["shades"]["results"]) == {"encoder", "random encoder", "raw pixels"}
    assert record["shades"]["results"]["random encoder"]["linear"]["value"] > 0.5
    assert list(record["shades"]["results"]["encoder"]["few_labels"]) == ["1", "12"]
    assert "skipped" not in record


def test_what_cannot_be_used_is_named_and_the_rest_is_measured(make_ground: Make, shades: Path, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for number in range(10):
        Image.fromarray(np.full((16, 16, 3), number, np.uint8)).save(tmp_path / "flat" / f"{number}.png")
    pairs = (f"nowhere={tmp_path / 'absent'}", f"flat={tmp_path / 'flat'}", f"shades={shades}")
    record = transfer.measure(make_ground(transfer=pairs, shots=(1, 30), fractions=()))
    assert set(record) == {"shades", "skipped"}
    assert set(record["skipped"]) == {"nowhere", "flat", "shades: few labels, 30 per class"}
    assert "no labels" in record["skipped"]["flat"]


def test_nothing_that_can_be_used_is_a_failure(make_ground: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent"):
        transfer.measure(make_ground(transfer=(f"gone={tmp_path / 'absent'}",)))


def test_the_encoders_are_those_of_the_evaluation(make_ground: Make, shades: Path) -> None:
    ground = make_ground()
    other = transfer.elsewhere(ground, "shades", str(shades))
    image = next(ground.images("test"))
    for name in ground.modules:
        assert (ground.encode(name, image) == other.encode(name, image)).all()

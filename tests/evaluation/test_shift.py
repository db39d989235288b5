"""Images of the same classes from elsewhere: classes by name, the others named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compressl.errors import DataError
from compressl.evaluation.ground import ENCODER, RANDOM, Ground
from compressl.evaluation.shift import match_classes, measure_shifts
from compressl.measures.packing import unpack_bits

MakeGround = Callable[..., Ground]


def folder(root: Path, classes: dict[str, int], count: int = 6) -> Path:
    """Class folders of noise with more of one channel, 3 for none."""
    random = np.random.default_rng(7)
    for name, channel in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            image = random.integers(0, 120, (16, 16, 3))
            if channel < 3:
                image[:, :, channel] += 60
            Image.fromarray(image.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


def shifts(ground: Ground) -> tuple[dict[str, Any], dict[str, str]]:
    skipped: dict[str, str] = {}
    return measure_shifts(ground, skipped), skipped


def test_classes_are_matched_by_name(make_ground: MakeGround, tmp_path: Path) -> None:
    path = folder(tmp_path / "other", {"Blue": 2, "RED": 0, "yellow": 3})
    found, skipped = shifts(make_ground(shift=(f"photos={path}",)))
    record = found["photos"]
    assert skipped == {}
    assert record["classes"] == ["red", "blue"]
    assert record["images"] == 12, "all of a set without a split of its own is used"
    assert record["clean_images"] == 20
    assert record["left_out"] == "No training class has these names: yellow."
    for name in (ENCODER, RANDOM):
        result = record["results"][name]
        accuracy, clean, gap = (result[key]["value"] for key in ("accuracy", "clean", "gap"))
        assert gap == pytest.approx(clean - accuracy)
        assert unpack_bits(result["accuracy"]["correct"], 12).mean() == pytest.approx(accuracy)
        assert result["gap"]["low"] <= gap <= result["gap"]["high"]
    assert record["results"][ENCODER]["accuracy"]["value"] > 0.5  # the same colours as those learnt


def test_a_mapping_names_classes_that_differ(make_ground: MakeGround, tmp_path: Path) -> None:
    path = folder(tmp_path / "other", {"azure": 2, "crimson": 0})
    (tmp_path / "classes.json").write_text(json.dumps({"azure": "blue", "crimson": "Red"}))
    found, skipped = shifts(make_ground(shift=(f"photos={path}@{tmp_path / 'classes.json'}", f"bare={path}")))
    assert found["photos"]["classes"] == ["red", "blue"]
    assert found["photos"]["left_out"] is None
    (tmp_path / "classes.json").write_text(json.dumps({"azure": "red", "crimson": "blue"}))
    swapped = shifts(make_ground(shift=(f"photos={path}@{tmp_path / 'classes.json'}",)))[0]["photos"]
    assert swapped["data"] == found["photos"]["data"], "the same images"
    assert swapped["rows"] != found["photos"]["rows"], "as other classes"
    assert "None of its classes is one of the training images': azure, crimson." in skipped["shift bare"]


def test_what_cannot_be_opened_is_named_and_the_rest_goes_on(make_ground: MakeGround, tmp_path: Path) -> None:
    path = folder(tmp_path / "other", {"red": 0, "blue": 2})
    (tmp_path / "broken.json").write_text("{")
    np.save(tmp_path / "plain.npy", np.zeros((4, 16, 16, 3), np.uint8))
    specs = (f"gone={tmp_path}/nowhere", f"broken={path}@{tmp_path}/broken.json", f"plain={tmp_path}/plain.npy")
    found, skipped = shifts(make_ground(shift=(*specs, f"good={path}")))
    assert list(found) == ["good"]
    assert "neither a file or folder" in skipped["shift gone"]
    assert "cannot be read as JSON" in skipped["shift broken"]
    assert "no labels" in skipped["shift plain"]


def test_a_set_with_a_test_part_gives_that_alone(make_ground: MakeGround, tmp_path: Path) -> None:
    for part, count in (("train", 9), ("test", 4)):
        folder(tmp_path / "other" / part, {"red": 0, "blue": 2}, count)
    found, _ = shifts(make_ground(shift=(f"photos={tmp_path / 'other'}",)))
    assert found["photos"]["images"] == 8


def test_mappings_must_name_classes_of_ours() -> None:
    assert match_classes(["sports-car", "Cat"], ["cat", "sports car"], {}) == [1, 0]
    with pytest.raises(DataError, match="have not: dog"):
        match_classes(["cat"], ["cat"], {"cat": "dog"})


def test_nothing_is_asked_for(ground: Ground) -> None:
    assert shifts(ground) == ({}, {})

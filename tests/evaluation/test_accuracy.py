"""The figures of each representation: in the record's layout, from one set of draws, touching test labels last."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from compressl.evaluation import accuracy
from compressl.evaluation.ground import Ground
from compressl.measures.packing import unpack_bits

Make = Callable[..., Ground]


SETTINGS = {"shots": (1, 5), "fractions": (0.5,), "draws": 3}


@pytest.fixture(scope="module")
def record(new_ground: Make) -> dict[str, Any]:
    return json.loads(json.dumps(accuracy.measure(new_ground(**SETTINGS)), allow_nan=False))  # type: ignore[no-any-return]


def test_the_record_has_every_figure_with_its_interval(record: dict[str, Any]) -> None:
    assert set(record) == {"encoder", "random encoder", "raw pixels"}
    for result in record.values():
        for classifier in ("knn", "linear", "ridge"):
            figure = result[classifier]
            assert figure["low"] <= figure["value"] <= figure["high"]
            assert unpack_bits(figure["correct"], 40).mean() == pytest.approx(figure["value"])
        assert list(result["few_labels"]) == ["1", "5", "50 %"]
        for figure in result["few_labels"].values():
            assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
            assert np.mean(figure["draws"]) == pytest.approx(figure["value"])
            assert len(figure["draws"]) == 3
    assert record["encoder"]["linear"]["weight_decay"] in (1e-3, 1e-1)
    assert record["raw pixels"]["dimension"] == 16 * 16 * 3


def test_more_labels_help_where_the_class_can_be_seen(record: dict[str, Any]) -> None:
    curve = record["raw pixels"]["few_labels"]
    assert curve["1"]["value"] < curve["5"]["value"]
    assert record["raw pixels"]["ridge"]["value"] > 0.9  # the class is a colour


def test_twice_the_same_to_the_last_digit(make_ground: Make, record: dict[str, Any]) -> None:
    assert json.loads(json.dumps(accuracy.measure(make_ground(**SETTINGS)))) == record


def test_a_class_that_is_too_small_skips_that_amount_alone(make_ground: Make) -> None:
    made = accuracy.measure(make_ground(shots=(1, 11), fractions=()))
    assert list(made["encoder"]["few_labels"]) == ["1"]
    assert "smallest class has 10 training images" in made["skipped"]["few labels, 11 per class"]


def test_test_labels_change_figures_and_no_choice(make_ground: Make) -> None:
    """Other test labels: the same weight decays and ridges, chosen on training images."""
    ground = make_ground(shots=(2,), fractions=())
    other = replace(ground, test=replace(ground.test, labels=(ground.test.labels + 1) % 4))
    one, two = accuracy.measure(ground), accuracy.measure(other)
    for name in ground.modules:
        assert one[name]["linear"]["weight_decay"] == two[name]["linear"]["weight_decay"]
        assert one[name]["ridge"]["ridge"] == two[name]["ridge"]["ridge"]
    assert one["raw pixels"]["linear"]["value"] != two["raw pixels"]["linear"]["value"]

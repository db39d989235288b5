"""Fine-tuning learns, leaves the encoder alone, and lets test images choose nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from compressl.errors import DataError
from compressl.evaluation import fine_tuning
from compressl.evaluation.ground import Ground
from compressl.measures.packing import unpack_bits

Make = Callable[..., Ground]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LEAST": 6, "MOST": 10, "BATCH": 20, "RATES": (1e-6, 0.1)}.items():
        monkeypatch.setattr(fine_tuning, name, value)


@pytest.fixture
def record(make_ground: Make, short: None) -> dict[str, Any]:
    return json.loads(json.dumps(fine_tuning.measure(make_ground(fractions=(0.5,))), allow_nan=False))  # type: ignore[no-any-return]


def test_the_record_and_that_it_learns(record: dict[str, Any]) -> None:
    for name in ("encoder", "random encoder"):
        assert list(record[name]) == ["50 %", "100 %"]
        assert [figure["images"] for figure in record[name].values()] == [20, 40]
        for figure in record[name].values():
            assert figure["low"] <= figure["value"] <= figure["high"]
            assert unpack_bits(figure["correct"], 40).mean() == pytest.approx(figure["value"])
            assert set(figure["held_out"]) == {"1e-06", "0.1"}
            assert figure["learning_rate"] in (1e-6, 0.1)
        assert record[name]["100 %"]["steps"] == 10
    assert max(record[name]["100 %"]["value"] for name in ("encoder", "random encoder")) > 0.5  # chance: 0.25
    assert "held-out fifth" in record["protocol"]


def test_the_encoders_of_the_ground_stay_as_they_are_and_a_second_call_repeats_the_first(
    make_ground: Make, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fine_tuning, "RATES", (0.1,))
    ground = make_ground(fractions=())
    before = {n: {k: v.clone() for k, v in m.state_dict().items()} for n, m in ground.modules.items() if m is not None}
    first = fine_tuning.measure(ground)
    for name, state in before.items():
        module = ground.modules[name]
        assert module is not None
        assert not module.training
        assert all(torch.equal(state[k], v) for k, v in module.state_dict().items())
    assert fine_tuning.measure(ground) == first


def test_the_learning_rate_is_the_best_on_held_out_training_images(
    make_ground: Make, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other test labels the choice and what it was made on are the same."""
    monkeypatch.setattr(fine_tuning, "MOST", 4)
    ground = make_ground(fractions=())
    other = replace(ground, test=replace(ground.test, labels=np.roll(ground.test.labels, 1)))
    one, two = (fine_tuning.measure(g)["encoder"]["100 %"] for g in (ground, other))
    assert one["held_out"] == two["held_out"]
    assert one["held_out"][f"{one['learning_rate']:g}"] == max(one["held_out"].values())
    assert one["correct"] != two["correct"]


def test_too_few_labels_are_a_sentence(make_ground: Make, short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fine_tuning, "RATES", (0.1,))
    record = fine_tuning.measure(make_ground(fractions=(0.1,)))  # one image of each class
    assert list(record["encoder"]) == ["100 %"]
    assert "held-out images" in record["skipped"]["10 %"]
    ground = make_ground(fractions=())
    rows = np.arange(8)
    few = replace(ground.train, indices=ground.train.indices[rows], labels=ground.train.labels[rows])
    with pytest.raises(DataError, match="held-out images"):
        fine_tuning.measure(replace(ground, train=few))

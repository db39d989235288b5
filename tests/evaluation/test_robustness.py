"""Robustness on a small ground: the record, its comparisons, and what is said where there is nothing to compare."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressl.corruptions import CATEGORIES, EXTRA, KINDS, corrupt
from compressl.errors import DataError
from compressl.evaluation.ground import ENCODER, RANDOM, Ground
from compressl.evaluation.robustness import ALEXNET, Outcome, _against, _alexnet, _baseline, measure
from compressl.measures.packing import unpack_bits, unpack_floats

MakeGround = Callable[..., Ground]
N = 40


@pytest.fixture(scope="module")
def record(new_ground: MakeGround) -> dict[str, Any]:
    return measure(new_ground())


def save(path: Path, record: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"measures": {"robustness": record}}))
    return path


def test_the_record_agrees_with_itself(record: dict[str, Any]) -> None:
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["skipped"] == {}
    for name in (ENCODER, RANDOM):
        result = record["results"][name]
        accuracy = np.array([result["accuracy"][kind] for kind in KINDS])
        assert accuracy.shape == (15, 5)
        assert result["corrupted"]["value"] == pytest.approx(accuracy.mean())
        assert result["mean_corruption_error"]["value"] == pytest.approx(1 - accuracy.mean())
        assert result["gap"]["value"] == pytest.approx(result["clean"]["value"] - accuracy.mean())
        assert result["extra"]["value"] == pytest.approx(np.mean([result["accuracy"][kind] for kind in EXTRA]))
        for category, kinds in CATEGORIES.items():
            expected = np.mean([result["accuracy"][kind] for kind in kinds])
            assert result["categories"][category]["value"] == pytest.approx(expected)
        for figure in (result["clean"], result["gap"], result["knn"]["corrupted"]):
            assert figure["low"] <= figure["value"] <= figure["high"]
    correct = record["results"][ENCODER]["correct"]
    for kind in (*KINDS, *EXTRA):
        bits = unpack_bits(correct["corrupted"][kind], 5 * N).reshape(5, N)
        assert bits.mean(1).tolist() == pytest.approx(record["results"][ENCODER]["accuracy"][kind])
    means = unpack_floats(correct["mean_corrupted"])
    assert means.mean() == pytest.approx(record["results"][ENCODER]["corrupted"]["value"], abs=1e-6)
    assert "correct" not in record["results"][RANDOM]


def test_figures_are_those_of_the_probe_and_of_knn(ground: Ground, record: dict[str, Any]) -> None:
    labels, rows = ground.labels("test"), torch.arange(N)
    result, probe = record["results"][ENCODER], ground.probe(ENCODER)
    assert result["clean"]["value"] == pytest.approx(
        float((probe.predict(ground.features(ENCODER, "test")) == labels).double().mean())
    )
    images = corrupt(torch.cat(list(ground.images("test"))), "shot_noise", 4, rows)
    with torch.no_grad():
        predicted = probe.predict(ground.encode(ENCODER, images))
    assert result["accuracy"]["shot_noise"][3] == pytest.approx(float((predicted == labels).double().mean()))


def test_attacks_start_from_clean_accuracy_and_only_take_away(record: dict[str, Any]) -> None:
    attacks = record["attacks"]
    assert attacks["images"] == N
    assert [entry["epsilon"] for entry in attacks["linf"]] == [0, 1 / 255, 2 / 255, 4 / 255]
    assert [entry["epsilon"] for entry in attacks["l2"]] == [0.25, 0.5]
    clean = unpack_bits(record["results"][ENCODER]["correct"]["clean"], N)
    none, *more = (unpack_bits(entry["correct"], N) for entry in attacks["linf"] + attacks["l2"])
    assert np.array_equal(none, clean)
    for correct in more:
        assert not (correct & ~clean).any()
    assert more[2].sum() < clean.sum()


def test_twice_the_same_and_a_baseline_on_the_same_images(
    make_ground: MakeGround, record: dict[str, Any], tmp_path: Path
) -> None:
    path = save(tmp_path / "evaluation.json", record)
    again = measure(make_ground(baseline=path))
    for name in (ENCODER, RANDOM):
        found = again["results"][name].pop("baseline")
        if name == ENCODER:
            assert found["mean_corruption_error"]["value"] == pytest.approx(1)
            assert found["accuracy_difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
            assert set(found["corruption_error"]) == set(KINDS)
            assert found["name"] == str(path)
    again["skipped"] = {what: why for what, why in again["skipped"].items() if "against" not in what}
    assert again == record


def test_a_baseline_that_cannot_be_compared_is_named(record: dict[str, Any], tmp_path: Path) -> None:
    other = save(tmp_path / "other.json", record | {"conditions": record["conditions"] | {"seed": 9}})
    with pytest.raises(DataError, match="other conditions: seed differ"):
        _baseline(other, record["conditions"])
    (tmp_path / "broken.json").write_text("[]")
    for path in (tmp_path / "absent.json", tmp_path / "broken.json"):
        with pytest.raises(DataError, match="no measured robustness"):
            _baseline(path, record["conditions"])


def test_alexnets_errors_are_the_published_ones(ground: Ground) -> None:
    assert set(ALEXNET) == set(KINDS)
    assert np.mean([*ALEXNET.values()]) == pytest.approx(78.9, abs=0.1)
    perfect = np.ones(10, dtype=bool)
    harmed = np.arange(10) < 5
    outcome = Outcome(perfect, {kind: np.tile(harmed, (5, 1)) for kind in KINDS})
    skipped: dict[str, str] = {}
    found = _against(ground, outcome, _alexnet(), skipped)
    assert found["corruption_error"]["brightness"] == pytest.approx(0.5 / 0.565)
    assert found["relative_corruption_error"]["brightness"] == pytest.approx(0.5 / (0.565 - 0.435))
    assert "comparable only" in found["note"]
    assert "accuracy_difference" not in found
    assert skipped == {}


def test_large_views_and_a_baseline_that_is_absent(
    make_ground: MakeGround, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    right = np.arange(N) % 2 == 0
    whole = Outcome(right, {kind: np.tile(right, (5, 1)) for kind in (*KINDS, *EXTRA)}, right, right / 1.0)
    monkeypatch.setattr("compressl.evaluation.robustness._outcomes", lambda ground, rows: {ENCODER: whole})
    monkeypatch.setattr("compressl.evaluation.robustness.measure_attacks", lambda ground: {})
    ground = make_ground(baseline=tmp_path / "absent.json")
    ground.card = replace(ground.card, size=72)
    found = measure(ground)
    assert "ImageNet-C" in found["protocol"]["corruptions"]
    assert found["results"][ENCODER]["alexnet"]["name"] == "AlexNet"
    assert found["results"][ENCODER]["alexnet"]["relative_mean_corruption_error"]["value"] == pytest.approx(0)
    assert "baseline" not in found["results"][ENCODER]
    assert "no measured robustness" in found["skipped"]["baseline"]

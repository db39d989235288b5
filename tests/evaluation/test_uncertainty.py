"""Uncertainty on a small ground: the record as JSON, twice the same, each source of doubt, and what cannot be had."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressl.errors import DataError
from compressl.evaluation import uncertainty
from compressl.evaluation.ground import Ground
from compressl.evaluation.labelled import Labelled
from compressl.evaluation.scores import Codes, Scorer, other_data
from compressl.evaluation.votes import soft_labels
from compressl.measures.packing import unpack_bits, unpack_floats
from compressl.methods import create_method
from compressl.settings.methods import CSimCLRSettings, StochConSettings

SCORES = {"entropy_bits", "least_confidence", "negative_norm", "knn_distance"}


def _record(ground: Ground) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(uncertainty.measure(ground), allow_nan=False))
    return found


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Unlabelled stripes, which nothing in the training resembles."""
    images = np.zeros((12, 16, 16, 3), dtype=np.uint8)
    images[:, ::2] = 255
    images[:, :, 0] = np.arange(12)[:, None, None]
    np.save(tmp_path / "stripes.npy", images)
    return tmp_path / "stripes.npy"


@pytest.fixture
def votes(ground: Ground, tmp_path: Path) -> Path:
    """Ten people, of whom some doubt the first half of the images."""
    counts = np.zeros((40, 4), dtype=np.uint16)
    rows = np.arange(40)
    counts[rows, ground.test.labels] = np.where(rows < 20, 6, 10)
    counts[rows, (ground.test.labels + 1) % 4] += np.where(rows < 20, 4, 0).astype(np.uint16)
    np.savez(tmp_path / "votes.npz", counts=counts)
    return tmp_path / "votes.npz"


def test_the_whole_record(make_ground: Callable[..., Ground], foreign: Path, votes: Path) -> None:
    ground = make_ground(transfer=(f"stripes={foreign}",), soft_labels=votes, images=24)
    record = _record(ground)
    assert record == _record(ground), "not twice the same"
    assert set(record["results"]) == {"encoder", "random encoder"}
    assert len(record["coverage"]) == 20
    one = record["results"]["encoder"]
    every = SCORES | {"dispersion"}
    assert (
        set(one["errors"]) == set(one["other_data"]["stripes"]["scores"]) == set(one["human"]["correlation"]) == every
    )
    for kind in ("gaussian_noise", "defocus_blur"):
        assert set(one["severity"][kind]) == SCORES
        assert all(len(entry["mean"]) == 6 for entry in one["severity"][kind].values())
    calibration = one["calibration"]
    assert calibration["held_out_images"] == 8
    for when in ("before", "after"):
        assert sum(calibration[when]["bins"]["count"]) == 40
        for figure in ("ece", "ece_equal_mass", "brier", "nll_bits"):
            assert (
                calibration[when][figure]["low"]
                <= calibration[when][figure]["value"]
                <= calibration[when][figure]["high"]
            )
    assert one["human"]["entropy_bits"]["value"] == pytest.approx(0.9709505944546686 / 2)
    assert one["human"]["majority_is_label"] == 1
    assert one["errors"]["dispersion"]["images"] == one["views"]["images"] == 24
    assert record["results"]["random encoder"].get("per_image") is None


def test_values_of_images_give_the_figures_back(ground: Ground) -> None:
    one = _record(ground)["results"]["encoder"]
    images = one["per_image"]
    assert unpack_bits(images["correct"], 40).mean() == pytest.approx(one["accuracy"])
    for key in ("nll_bits", "brier"):
        assert unpack_floats(images[key]).mean() == pytest.approx(one["calibration"]["before"][key]["value"], rel=1e-5)
    assert unpack_floats(images["least_confidence"]).mean() == pytest.approx(
        1 - one["calibration"]["before"]["confidence"], rel=1e-5
    )
    assert 1 - unpack_floats(images["dispersion"]).mean() == pytest.approx(one["views"]["resultant_length"]["value"])


def test_other_data_is_scored_as_the_own_is(ground: Ground) -> None:
    """The own test images as other data cannot be told apart; scores that are higher there are told by all of them."""
    one = uncertainty._Measured(ground, "encoder", Scorer.of(ground, "encoder"), ground.rows("test", 40), {})
    scores = one.separation("itself", ground)["scores"]
    assert set(scores) == SCORES | {"dispersion"}
    assert all(entry["auroc"]["value"] == pytest.approx(0.5) for entry in scores.values())
    told = uncertainty._separation(torch.zeros(9), torch.ones(5))
    assert told == {"auroc": {"value": 1, "low": 1, "high": 1}, "fpr95": 0}


def test_other_data_is_its_test_part_without_labels_and_no_more_than_asked_for(
    make_ground: Callable[..., Ground], foreign: Path
) -> None:
    other = other_data(make_ground(images=1), str(foreign))
    assert len(other.test.indices) == 1
    assert len(other_data(make_ground(), str(foreign)).test.indices) == 2, "a fifth of 12"


def test_the_test_images_have_no_say_in_the_temperature(ground: Ground) -> None:
    fitted = uncertainty._temperature(ground, "encoder")
    other = replace(ground, test=Labelled(ground.test.packed, ground.test.indices[:12], ground.test.labels[:12]))
    assert uncertainty._temperature(other, "encoder") == fitted


def test_a_class_without_test_images_and_all_right(ground: Ground) -> None:
    """The probe is right on some images: on these alone there are no errors to tell apart."""
    right = ground.probe("encoder").predict(ground.features("encoder", "test")).numpy() == ground.test.labels
    for chosen, which in ((right, "right"), (~right, "wrong")):
        if not chosen.any():
            continue
        chosen &= ground.test.labels != 3
        test = Labelled(ground.test.packed, ground.test.indices[chosen], ground.test.labels[chosen])
        record = _record(replace(ground, test=test))
        assert f"classified {which}" in record["skipped"]["encoder: detection of errors"]
        errors = record["results"]["encoder"]["errors"]
        assert all(entry["auroc"] is None and entry["fpr95"] is None for entry in errors.values())
        assert errors["entropy_bits"]["aurc"]["value"] == (which == "wrong")


@pytest.mark.parametrize(
    ("settings", "varies"),
    [
        (CSimCLRSettings(), False),
        (StochConSettings(latent="bernoulli"), True),
        (StochConSettings(latent="gaussian"), True),
    ],
)
def test_codes_that_are_drawn(ground: Ground, settings: Any, varies: bool) -> None:
    encoder = ground.modules["encoder"]
    assert encoder is not None
    torch.manual_seed(0)
    method = create_method(settings, encoder, 64).eval()
    with_codes = replace(ground, method=method)
    bank, labels = with_codes.features("encoder", "train"), with_codes.labels("train")
    codes = Codes.of(with_codes, bank, labels, 1e-2)
    assert codes is not None
    with torch.no_grad():
        scores = codes(bank)
    assert ("code_entropy_bits" in scores) == varies, "a constant entropy says nothing of an image"
    assert all(values.shape == (40,) and bool(torch.isfinite(values).all()) for values in scores.values())
    assert bool((scores["code_disagreement_bits"] <= 1 + 1e-9).all()), "two draws differ by a bit at most"
    record = _record(with_codes)
    assert "code_disagreement_bits" in record["results"]["encoder"]["errors"]
    assert "code_disagreement_bits" not in record["results"]["random encoder"]["errors"]


def test_parts_that_cannot_be_had_are_sentences(make_ground: Callable[..., Ground], tmp_path: Path) -> None:
    np.save(tmp_path / "narrow.npy", np.ones((40, 3)))
    record = _record(make_ground(transfer=("gone=/nowhere/at/all",), soft_labels=tmp_path / "narrow.npy"))
    assert "/nowhere/at/all" in record["skipped"]["other data: gone"]
    assert "3 classes" in record["skipped"]["soft labels"]
    assert record["results"]["encoder"]["human"] is None
    assert record["results"]["encoder"]["other_data"] == {}


def test_votes_that_do_not_fit_are_sentences(make_ground: Callable[..., Ground], votes: Path, tmp_path: Path) -> None:
    counts = np.load(votes)["counts"]
    for name, array, message in (
        ("short", counts[:30], r"\[30, 4\]; there are 40 test images"),
        ("flat", counts[:, 0], r"\[40\]"),
        ("other order", counts[np.random.default_rng(0).permutation(40)], "only .*%"),
        ("nobody", np.zeros((40, 4)), "40 image"),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(DataError, match=message):
            soft_labels(make_ground(), tmp_path / f"{name}.npy")
    (tmp_path / "text.npz").write_text("no votes")
    for name in ("text.npz", "absent.npz"):
        with pytest.raises(DataError, match="cannot be read"):
            soft_labels(make_ground(), tmp_path / name)


def test_votes_follow_their_images(ground: Ground, votes: Path) -> None:
    """Where some test images are unreadable, votes are given for all of them and taken by index."""
    whole = soft_labels(ground, votes)
    kept = np.arange(1, 40, 3)
    some = soft_labels(replace(ground, test=Labelled(ground.test.packed, kept, ground.test.labels[kept])), votes)
    assert whole is not None
    assert some is not None
    assert torch.equal(some, whole[kept])


def test_too_few_training_images(ground: Ground) -> None:
    train = Labelled(ground.train.packed, ground.train.indices[:8], ground.train.labels[:8])
    with pytest.raises(DataError, match="8 training images"):
        uncertainty.measure(replace(ground, train=train))

"""The geometry of a small ground: whole, the same twice, and frank about what it lacks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from compressl.evaluation import geometry
from compressl.evaluation.ground import Ground
from compressl.measures.packing import unpack_floats

PARTS = {"invariance", "augmentations", "spread", "dimension", "instances", "groupings"}
SETTINGS = {"views": 4, "resamples": 100}


@pytest.fixture
def ground(make_ground: Callable[..., Ground]) -> Ground:
    return make_ground(**SETTINGS)


@pytest.fixture(scope="module")
def record(new_ground: Callable[..., Ground]) -> dict[str, Any]:
    return geometry.measure(new_ground(**SETTINGS))


def test_the_record_is_whole_and_the_same_twice(record: dict[str, Any], make_ground: Callable[..., Ground]) -> None:
    assert record["skipped"] == {}
    assert set(record["results"]["encoder"]) == PARTS | {"features", "risk"}
    assert set(record["results"]["raw pixels"]) == PARTS | {"features"}
    again = geometry.measure(make_ground(**SETTINGS))
    assert json.dumps(record, allow_nan=False) == json.dumps(again)


def intervals(part: Any) -> list[dict[str, float]]:
    """Every figure with an interval in a record."""
    if not isinstance(part, dict):
        return []
    if set(part) == {"value", "low", "high"}:
        return [part]
    return [found for value in part.values() for found in intervals(value)]


def test_figures_agree_with_one_another(record: dict[str, Any]) -> None:
    results = record["results"]
    assert len(found := intervals(results)) > 100
    assert all(figure["low"] - 1e-9 <= figure["value"] <= figure["high"] + 1e-9 for figure in found)
    result = results["encoder"]
    invariance, risk = result["invariance"], result["risk"]
    cosine, null = invariance["cosine"]["value"], invariance["cosine_null"]["value"]
    assert unpack_floats(invariance["per_image"]["cosine"]).mean() == pytest.approx(cosine, rel=1e-6)
    assert invariance["alignment"]["value"] == pytest.approx(2 - 2 * cosine, rel=1e-4)
    assert invariance["invariance"]["value"] == pytest.approx((cosine - null) / (1 - null), rel=1e-3)
    parts = ("usability", "probe_generalisation", "encoder_generalisation")
    assert sum(risk[part]["value"] for part in parts) == pytest.approx(risk["total"]["value"])
    assert result["spread"]["entropy_bits"]["value"] <= result["spread"]["entropy_of_uniform_bits"]
    assert result["dimension"]["needed"] == 3
    assert result["instances"]["chance_bits"] == pytest.approx(math.log2(40))


def test_each_augmentation_alone_changes_what_it_should() -> None:
    from compressl.settings.views import ViewRecipe

    recipes = geometry.alone(ViewRecipe(size=16, solarize=0.5))
    plain = recipes.pop("plain")[0]
    for kind, (recipe, _) in recipes.items():
        differing = {f for f in vars(plain) if getattr(plain, f) != getattr(recipe, f)}
        expected = {"crop": {"min_scale", "min_ratio", "max_ratio"}, "colour": {"jitter"}, "grey": {"grayscale"}}
        assert differing == expected.get(kind, {kind})


class _Blind(nn.Module):
    """The mean colour of an image, whatever its shape: neither a flip nor much of a blur can change it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def test_what_is_invariant_by_construction_is_found_invariant(ground: Ground) -> None:
    ground.modules["encoder"] = _Blind()
    augmentations = geometry.measure(ground)["results"]["encoder"]["augmentations"]
    assert augmentations["flip"]["invariance"]["value"] == pytest.approx(1, abs=1e-4)
    assert augmentations["blur"]["invariance"]["value"] > 0.95
    assert augmentations["grey"]["invariance"]["value"] < 0.9


class _Constant(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.new_ones(len(x), 6)


def test_a_collapsed_encoder_is_said_and_the_others_are_measured(ground: Ground) -> None:
    ground.modules["encoder"] = _Constant()
    record = geometry.measure(ground)
    json.dumps(record, allow_nan=False)
    assert "collapsed" in record["skipped"]["encoder: dimension"]
    assert "dimension" not in record["results"]["encoder"]
    assert set(record["results"]["random encoder"]) == PARTS | {"features", "risk"}


def test_two_views_are_too_few_for_the_instance_probe_alone(make_ground: Callable[..., Ground]) -> None:
    record = geometry.measure(make_ground(views=2, resamples=100))
    assert "needs four" in record["skipped"]["encoder: instances"]
    assert set(record["results"]["encoder"]) == (PARTS | {"features", "risk"}) - {"instances"}


class _OneNumber(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2, 3))[:, None]


def test_a_single_feature_has_no_sphere_but_the_rest_is_measured(ground: Ground) -> None:
    ground.modules["encoder"] = _OneNumber()
    record = geometry.measure(ground)
    assert "encoder: spread" in record["skipped"]
    assert record["results"]["encoder"]["dimension"]["correlation_rank"] == 1
    json.dumps(record, allow_nan=False)

"""Lipschitz bounds of a small ground: whole, the same twice, and below what is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from compressl.evaluation import lipschitz
from compressl.evaluation.ground import Ground
from compressl.evaluation.lipschitz import HEAD
from compressl.measures.packing import unpack_floats
from compressl.methods import create_method
from compressl.settings.methods import CSimCLRSettings, SimCLRSettings

KINDS = {"views", "gaussian_noise", "brightness", "defocus_blur", "interpolation"}
SETTINGS = {"images": 50, "resamples": 100}


@pytest.fixture
def ground(make_ground: Callable[..., Ground]) -> Ground:
    return make_ground(**SETTINGS)


@pytest.fixture(scope="module")
def record(new_ground: Callable[..., Ground]) -> dict[str, Any]:
    return lipschitz.measure(new_ground(**SETTINGS))


def test_the_record_is_whole_and_the_same_twice(record: dict[str, Any], make_ground: Callable[..., Ground]) -> None:
    assert record["skipped"] == {}
    assert set(record["results"]) == {"encoder", "random encoder"}
    for result in record["results"].values():
        assert set(result["pairs"]) == KINDS
        assert len(unpack_floats(result["local"]["per_image"])) == 40
        assert result["local"]["last_step"]["max"] < 0.1
    again = lipschitz.measure(make_ground(**SETTINGS))
    assert json.dumps(record, allow_nan=False) == json.dumps(again)


def test_bounds_are_in_order(record: dict[str, Any]) -> None:
    for result in record["results"].values():
        for pairs in result["pairs"].values():
            assert pairs["kl_bits"]["max"] <= pairs["sup_bits"]["max"]
            scale = result["kappa"] / math.log(2)
            assert pairs["sup_bits"]["max"] == pytest.approx(scale * pairs["distance"]["max"], rel=1e-5)
            assert pairs["slope"]["q05"] <= pairs["slope"]["q50"] <= pairs["slope"]["max"]


class _Linear(nn.Module):
    """A fixed pixel of each channel beside a large constant: nearly linear once normalised, with a known slope."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, :, 3, 3], x.new_full((len(x), 1), 1e3)], 1)


def test_a_known_slope_is_found_and_no_pair_exceeds_it(ground: Ground) -> None:
    ground.modules["encoder"] = _Linear()
    result = lipschitz.measure(ground)["results"]["encoder"]
    constant = 1 / 0.25 / 1e3  # of the normalisation of pixels by a deviation of 0.25, then of the features
    assert result["local"]["slope"]["max"] == pytest.approx(constant, rel=1e-3)
    for pairs in result["pairs"].values():
        assert pairs["slope"]["max"] <= constant * 1.01


def test_a_head_that_was_trained_as_a_density_is_measured_too(ground: Ground) -> None:
    encoder = ground.modules["encoder"]
    assert encoder is not None
    ground.method = create_method(CSimCLRSettings(hidden=16, dim=8), encoder, 64).eval()
    result = lipschitz.measure(ground)["results"][HEAD]
    assert result["kappa"] == CSimCLRSettings().kappa_e
    assert set(result["pairs"]) == KINDS
    ground.method = create_method(SimCLRSettings(hidden=16, dim=8), encoder, 64).eval()
    assert HEAD not in lipschitz._representations(ground)


class _Overflowing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).sqrt()  # of negative pixels: not a number


def test_what_cannot_be_measured_is_said(ground: Ground) -> None:
    ground.modules["random encoder"] = _Overflowing()
    record = lipschitz.measure(ground)
    assert "not finite" in record["skipped"]["random encoder: views"]
    assert "not finite" in record["skipped"]["random encoder: local slope"]
    assert set(record["results"]["encoder"]["pairs"]) == KINDS
    json.dumps(record, allow_nan=False)

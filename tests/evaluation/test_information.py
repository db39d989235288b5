"""Information of an encoder on images: the record, what is left out, and what must come out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressl.errors import DataError
from compressl.evaluation import information
from compressl.evaluation.ground import ENCODER, RANDOM, Ground
from compressl.measures.packing import unpack_floats
from compressl.methods import CBYOL, CSimCLR, StochCon
from compressl.methods.base import Method
from compressl.settings.methods import CBYOLSettings, CSimCLRSettings, StochConSettings

Make = Callable[..., Ground]


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(information, "FEWEST", 40)
    monkeypatch.setattr(information, "KAPPAS", (3.0, 30.0))


@pytest.fixture
def with_method(make_ground: Make) -> Callable[..., Ground]:
    def make(build: Callable[[nn.Module], Method], **fields: Any) -> Ground:
        ground = make_ground(**{"views": 3, "kappa": 30.0} | fields)
        encoder = ground.modules[ENCODER]
        assert encoder is not None
        torch.manual_seed(0)
        ground.method = build(encoder).eval()
        return ground

    return make


def _csimclr(encoder: nn.Module) -> Method:
    return CSimCLR(CSimCLRSettings(hidden=16, dim=8), encoder, 64)


def test_the_record(with_method: Callable[..., Ground]) -> None:
    ground = with_method(_csimclr)
    record = information.measure(ground)
    assert json.loads(json.dumps(record, allow_nan=False)) == json.loads(json.dumps(information.measure(ground)))
    assert set(record["representations"]) == {ENCODER, RANDOM}
    for found in record["representations"].values():
        for part in ("total", "kept", "superfluous"):
            lower, upper = found[part]["lower"], found[part]["upper"]
            assert lower["low"] <= lower["value"] <= lower["high"]
            assert lower["value"] <= found[part]["ceiling"] + 1e-5
            assert lower["value"] <= upper["value"] + 4 * upper["standard_error"]
        assert found["kept"]["ceiling"] == pytest.approx(math.log2(40))
        assert found["superfluous"]["ceiling"] == pytest.approx(math.log2(3))
        assert unpack_floats(found["per_image"]["kept_lower"]).mean() == pytest.approx(
            found["kept"]["lower"]["value"], abs=1e-5
        )
        assert unpack_floats(found["per_image"]["superfluous_upper"]).shape == (40,)
        at = next(point for point in found["rate_curve"] if point["kappa"] == ground.settings.kappa)
        assert at["orthogonal_bits"] == record["orthogonal_bits"]
        assert at["total"]["upper"] == pytest.approx(
            found["total"]["upper"]["value"], abs=1e-4
        )  # all 40 images in both
        assert [point["kept_bits"] for point in found["superfluous_at"]] == [1.0, 2.0, 4.0]  # 4 classes are 2 bits
    assert record["trained_channel"]["channel"] == "von Mises-Fisher, dimension 8, concentration 1024"
    assert record["residual"]["given"] == "the other view"
    assert record["residual"]["excess_bits"]["value"] > 0
    assert list(record["skipped"]) == ["plane"]


def test_views_that_agree_have_nothing_superfluous(make_ground: Make) -> None:
    """And views of noise have nothing else."""
    ground = make_ground(views=4, kappa=30.0)
    image = torch.randn(40, 1, 16, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(40, 4, 16, generator=torch.Generator().manual_seed(1))
    views = {ENCODER: image.expand(40, 4, 16), RANDOM: noise}
    found = {}
    for name, features in views.items():
        _give(ground, features)
        found[name] = information._representation(ground, name, torch.arange(40))
    assert found[ENCODER]["superfluous"]["upper"]["value"] == pytest.approx(0, abs=1e-4)
    assert found[ENCODER]["kept"]["lower"]["value"] > 2
    assert found[ENCODER]["superfluous_at"][1] == {"kept_bits": 2.0, "superfluous_bits": pytest.approx(0, abs=1e-4)}
    assert found[RANDOM]["kept"]["lower"]["value"] < 0.1
    assert found[RANDOM]["superfluous"]["lower"]["value"] > 1
    assert found[RANDOM]["superfluous_at"][1]["superfluous_bits"] is None
    assert "so many bits are kept" in found[RANDOM]["skipped"]["superfluous_at"]


def _give(ground: Ground, views: Tensor) -> None:
    """Let the ground answer with these features of views, [M, A, F], about a mean of zero."""
    ground.view_features = lambda *args: views  # type: ignore[method-assign]
    ground.features = lambda *args: torch.zeros(2, views.shape[2])  # type: ignore[method-assign]


def test_the_centre_is_that_of_the_training_features(make_ground: Make) -> None:
    """A shift of all features changes only the figures of features as they are."""
    ground = make_ground(views=4, kappa=30.0)
    views = torch.randn(40, 4, 16, generator=torch.Generator().manual_seed(0))
    _give(ground, views)
    first = information._representation(ground, ENCODER, torch.arange(40))
    _give(ground, views + 5)
    ground.features = lambda *args: torch.full((2, 16), 5.0)  # type: ignore[method-assign]
    shifted = information._representation(ground, ENCODER, torch.arange(40))
    assert shifted["total"]["upper"]["value"] == pytest.approx(first["total"]["upper"]["value"], abs=1e-3)
    assert shifted["uncentred"]["total"]["upper"]["value"] < 0.5 * first["uncentred"]["total"]["upper"]["value"]


def test_a_collapsed_encoder_and_a_dead_part_are_sentences(make_ground: Make) -> None:
    ground = make_ground(views=4)
    _give(ground, torch.ones(40, 4, 16))
    ground.features = lambda *args: torch.ones(2, 16)  # type: ignore[method-assign]
    with pytest.raises(DataError, match="collapsed"):
        information.measure(ground)
    dead = torch.randn(40, 4, 16, generator=torch.Generator().manual_seed(0))
    dead[3, 1] = 0
    _give(ground, dead)
    ground.features = lambda *args: torch.ones(2, 16)  # type: ignore[method-assign]
    record = information._representation(ground, ENCODER, torch.arange(40))
    assert "uncentred" not in record
    assert "zero" in record["skipped"]["uncentred"]


def test_bits_of_a_binary_code(with_method: Callable[..., Ground]) -> None:
    build = lambda encoder: StochCon(StochConSettings(hidden=16, dim=8, latent_dim=24), encoder, 64)  # noqa: E731
    record = information.measure(with_method(build))
    code = record["trained_channel"]["code"]
    assert code["size_bits"] == 24
    assert 0 < code["coded_bits"] <= 24
    assert 0 < code["entropy_bits"]["value"] < 24
    assert code["image_bits"] == 16 * 16 * 24
    assert "no backward encoder" in record["skipped"]["residual"]


def test_the_slow_copy_sees_the_same_views(with_method: Callable[..., Ground]) -> None:
    ground = with_method(lambda encoder: CBYOL(CBYOLSettings(hidden=16, dim=8), encoder, 64))
    method = ground.method
    assert method is not None
    assert method.slow_encoder is not None
    rows = ground.rows("test", 40)
    slow = ground.view_features_of(method.slow_encoder, "test", rows, 2)  # still equal to the encoder
    torch.testing.assert_close(slow, ground.view_features(ENCODER, "test", rows, 3)[:, :2], rtol=1e-4, atol=1e-4)
    record = information.measure(ground)
    assert record["residual"]["given"] == "the same view by the slow copy"
    assert unpack_floats(record["residual"]["per_image"]["excess_bits"]).mean() == pytest.approx(
        record["residual"]["excess_bits"]["value"], rel=1e-4
    )


def test_the_plane(with_method: Callable[..., Ground]) -> None:
    ground = with_method(_csimclr)
    method = ground.method
    assert method is not None
    ground.history = [(0, lambda: method), (10, lambda: method)]
    first, last = information.measure(ground)["plane"]
    assert (first.pop("step"), last.pop("step")) == (0, 10)
    assert first == last
    assert 0 <= first["knn"]["low"] <= first["knn"]["value"] <= first["knn"]["high"] <= 1
    # the same images and the same encoder as in the figures, all training images in the centre of both
    figures = information._representation(ground, ENCODER, ground.rows("test", 500))
    assert first["kept"]["upper"] == pytest.approx(figures["kept"]["upper"]["value"], abs=1e-3)


def test_what_cannot_be_had_is_a_sentence(make_ground: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    ground = make_ground(views=2, images=40)
    skipped = information.measure(ground)["skipped"]
    assert set(skipped) == {"trained_channel", "residual", "plane"}
    assert "heads" in skipped["residual"]
    monkeypatch.setattr(information, "FEWEST", 50)
    with pytest.raises(DataError, match="40 test images, too few"):
        information.measure(ground)
    monkeypatch.setattr(information, "FEWEST", 40)
    with pytest.raises(DataError, match="--views 2"):
        information.measure(make_ground(views=1))


def test_a_point_is_resolved_where_its_bounds_are_near_and_no_ceiling_is() -> None:
    near, apart = {"lower": 1.0, "upper": 1.9}, {"lower": 1.0, "upper": 2.1}
    for kept, superfluous, resolved in [
        (near | {"saturated": False}, near | {"saturated": False}, True),
        (near | {"saturated": False}, near | {"saturated": True}, False),
        (apart | {"saturated": False}, near | {"saturated": False}, False),
    ]:
        assert information._resolved({"kept": kept, "superfluous": superfluous}) == resolved


def test_curves_use_images_of_the_whole_range() -> None:
    assert np.array_equal(information._spread(5, 10), np.arange(5))
    assert information._spread(101, 3).tolist() == [0, 50, 100]

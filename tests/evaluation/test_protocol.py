"""The evaluation as a whole: honest about what it used, the same twice, and clear about bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from compressl.data import ArraySource, PackedImages, pack
from compressl.errors import DataError
from compressl.evaluation import protocol
from compressl.evaluation.features import central_views, extract
from compressl.evaluation.ground import Ground
from compressl.evaluation.labelled import Labelled
from compressl.evaluation.protocol import Evaluation, evaluate
from compressl.measures.packing import unpack_bits
from compressl.models import EncoderCard, create_encoder
from compressl.settings.encoder import EncoderSettings
from compressl.settings.evaluate import EvaluateSettings

CARD = EncoderCard("resnet18", 0.125, True, 64, 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
CPU = torch.device("cpu")


def _packed(count: int, seed: int, classes: int = 3) -> PackedImages:
    """Images whose class is a colour, under noise."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = random.integers(0, 120, (count, 16, 16, 3))
    images[np.arange(count), :, :, labels] += 60
    return pack(ArraySource(images.astype(np.uint8), labels=labels, name="toy"), view_size=16, cache=None)


@pytest.fixture
def settings(tmp_path: Path) -> EvaluateSettings:
    return EvaluateSettings(
        run=tmp_path, data="toy", k=5, resamples=200, weight_decays=(1e-3, 1e-1), measures=("accuracy",)
    )


@pytest.fixture
def run(settings: EvaluateSettings) -> Callable[[], Evaluation]:
    encoder = create_encoder(EncoderSettings("resnet18", width=0.125), 16, seed=5)
    train, test = Labelled.of(_packed(90, 0), "training"), Labelled.of(_packed(60, 1), "test")
    names = ["r", "g", "b"]
    return lambda: evaluate(Ground.of(encoder, CARD, train, test, settings, CPU, class_names=names, split="by hand"))


def test_every_figure_has_an_interval_and_its_baselines(run: Callable[[], Evaluation]) -> None:
    record = json.loads(json.dumps(run().record))
    assert set(record["results"]) == {"encoder", "random encoder", "raw pixels"}
    for result in record["results"].values():
        for measure in ("knn", "linear"):
            assert result[measure]["low"] <= result[measure]["value"] <= result[measure]["high"]
            bits = unpack_bits(result[measure]["correct"], 60)
            assert bits.mean() == pytest.approx(result[measure]["value"])
    assert record["data"]["chance"] == pytest.approx(1 / 3)
    assert record["results"]["raw pixels"]["linear"]["value"] > 0.9  # the class is a colour
    assert record["results"]["raw pixels"]["dimension"] == 16 * 16 * 3
    assert record["data"]["split"] == "by hand"


def test_twice_the_same_to_the_last_digit(run: Callable[[], Evaluation]) -> None:
    first, again = run().record, run().record
    assert first["results"] == again["results"]


def test_features_do_not_depend_on_the_batch() -> None:
    packed = _packed(30, 0)
    encoder = create_encoder(EncoderSettings("resnet18", width=0.125), 16)
    indices = np.arange(30)
    numbers = {"size": 16, "mean": CARD.mean, "std": CARD.std, "device": CPU}
    whole = extract(encoder, packed, indices, batch_size=30, **numbers)  # type: ignore[arg-type]
    parts = extract(encoder, packed, indices, batch_size=7, **numbers)  # type: ignore[arg-type]
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-5)
    assert encoder.training, "the encoder was not left as it was"


def test_small_images_are_seen_whole_and_large_ones_by_their_centre() -> None:
    images = np.zeros((2, 96, 128, 3), dtype=np.uint8)
    images[:, 6:90, 22:106] = 255  # the central 7/8 of the shorter side, 84 px
    packed = pack(ArraySource(images), view_size=96, cache=None)
    view = next(central_views(packed, np.arange(2), 96, 2, CPU))
    assert view.mean() > 0.98
    whole = next(central_views(packed, np.arange(2), 32, 2, CPU))
    assert whole[:, :, 0].max() < 0.5


def test_raw_pixels_are_those_of_the_encoders_crop() -> None:
    images = np.zeros((2, 96, 96, 3), dtype=np.uint8)
    images[:, 6:90, 6:90] = np.random.default_rng(0).integers(0, 256, (2, 84, 84, 3))
    packed = pack(ArraySource(images), view_size=96, cache=None)
    border = next(central_views(packed, np.arange(2), 96, 2, CPU, side=16))[:, :, 0]
    assert border.mean() > 0.3, "the black frame outside of the crop was seen"


def test_test_images_that_were_learnt_from_are_named(settings: EvaluateSettings) -> None:
    """Also where the test images are a part of the collection that was learnt from."""
    from dataclasses import replace

    from compressl.data import Subset

    whole = ArraySource(_packed(70, 0).images, labels=np.arange(70) % 3, name="whole")
    parts = [
        pack(Subset(whole, indices, "part"), view_size=16, cache=None) for indices in np.split(np.arange(70), [40])
    ]
    train, test = (Labelled.of(part, "toy") for part in parts)
    encoder = create_encoder(EncoderSettings("resnet18", width=0.125), 16)
    for fingerprint, expected in ((whole.fingerprint(), True), ("other", False), (None, None)):
        card = replace(CARD, data_fingerprint=fingerprint)
        ground = Ground.of(encoder, card, train, test, replace(settings, measures=()), CPU, split="by hand")
        data = evaluate(ground).record["data"]
        assert data["seen_in_pretraining"] is expected
        assert ("also pretrained on" in data["split"]) == bool(expected)


def test_limits_are_balanced_and_do_not_depend_on_one_another() -> None:
    packed = _packed(90, 0)
    some, more = (Labelled.of(packed, "training", limit, seed=1) for limit in (15, 30))
    assert np.bincount(some.labels).tolist() == [5, 5, 5]
    assert set(some.indices) <= set(more.indices)


def test_unreadable_images_are_left_out(settings: EvaluateSettings) -> None:
    from dataclasses import replace

    packed = _packed(30, 0)
    readable = np.ones(30, dtype=bool)
    readable[4] = False
    assert 4 not in Labelled.of(replace(packed, readable=readable), "test").indices


def test_missing_labels_and_classes_are_sentences(settings: EvaluateSettings) -> None:
    from dataclasses import replace

    packed = _packed(30, 0)
    with pytest.raises(DataError, match="training images have no labels"):
        Labelled.of(replace(packed, labels=None), "training")
    with pytest.raises(DataError, match="one class only"):
        Labelled.of(replace(packed, labels=np.zeros(30, dtype=np.int64)), "test")
    encoder = create_encoder(EncoderSettings("resnet18", width=0.125), 16)
    train, test = Labelled.of(_packed(40, 0, classes=2), "training"), Labelled.of(_packed(30, 1), "test")
    with pytest.raises(DataError, match="no training image shows: b"):
        Ground.of(encoder, CARD, train, test, settings, CPU, class_names=["r", "g", "b"])


def test_an_encoder_that_diverged_is_named(settings: EvaluateSettings) -> None:
    encoder = create_encoder(EncoderSettings("resnet18", width=0.125), 16)
    with torch.no_grad():
        encoder.conv1.weight.fill_(float("nan"))  # type: ignore[union-attr,operator]
    train, test = Labelled.of(_packed(40, 0), "training"), Labelled.of(_packed(30, 1), "test")
    with pytest.raises(DataError, match="not finite"):
        evaluate(Ground.of(encoder, CARD, train, test, settings, CPU))


def test_what_cannot_be_measured_says_why_and_the_rest_is_measured(
    make_ground: Callable[..., Ground], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(ground: Ground) -> dict[str, float]:
        return {"images": len(ground.test.labels)}

    def refuse(ground: Ground) -> dict[str, float]:
        raise DataError("There are too few images.", "Give more.")

    monkeypatch.setattr(protocol, "measure_of", {"geometry": refuse, "lipschitz": measure}.__getitem__)
    record = evaluate(make_ground(measures=("lipschitz", "geometry"))).record
    assert record["measures"] == {"lipschitz": {"images": 40}}
    assert record["skipped"]["geometry"].startswith("There are too few images.")
    assert record["results"] == {}


def test_only_what_was_asked_for_is_measured_in_a_fixed_order() -> None:
    settings = EvaluateSettings(run=Path("x"), data="y", measures=("geometry,accuracy", "lipschitz"))
    assert settings.selected() == ["accuracy", "geometry", "lipschitz"]
    assert "transfer" in EvaluateSettings(run=Path("x"), data="y", transfer=("a=b",)).selected()
    everything = EvaluateSettings(run=Path("x"), data="y", measures=("all",)).selected()
    assert "fine-tuning" in everything
    assert "transfer" not in everything
    assert "fine-tuning" not in EvaluateSettings(run=Path("x"), data="y").selected()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"measures": ("acuracy",)}, "accuracy"),
        ({"measures": ()}, "at least one"),
        ({"measures": ("transfer",)}, "--transfer name=path"),
        ({"transfer": ("photos",)}, "name=path"),
        ({"shift": ("a=b", "a=c")}, "twice"),
        ({"images": 3}, "images must be at least"),
        ({"views": 1}, "views must be at least"),
        ({"kappa": 0.0}, "kappa"),
        ({"shots": (0,)}, "shots"),
        ({"fractions": (1.5,)}, "fractions"),
        ({"size": 2}, "size"),
    ],
)
def test_impossible_settings_are_sentences(fields: dict[str, object], sentence: str) -> None:
    problems = EvaluateSettings(run=Path("x"), data="y", **fields).check()  # type: ignore[arg-type]
    assert len(problems) == 1
    assert sentence in problems[0]

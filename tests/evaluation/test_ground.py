"""The ground of an evaluation: features once, the same again, of exactly the images and views asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compressl.errors import ResourceError
from compressl.evaluation import feature_cache
from compressl.evaluation.feature_cache import FeatureCache, hash_of_weights
from compressl.evaluation.ground import ENCODER, PIXELS, RANDOM, Ground
from compressl.objectives.von_mises_fisher import von_mises_fisher
from compressl.settings.views import ViewRecipe

Make = Callable[..., Ground]
WHOLE = ViewRecipe(min_scale=1.0, min_ratio=1.0, max_ratio=1.0, flip=0.0, jitter=0.0, grayscale=0.0)


@pytest.mark.parametrize("name", [ENCODER, RANDOM, PIXELS])
def test_views_that_change_nothing_have_the_features_of_the_images(ground: Ground, name: str) -> None:
    rows = torch.tensor([3, 17, 5])
    views = ground.view_features(name, "test", rows, 2, WHOLE)
    assert views.shape[:2] == (3, 2)
    for copy in range(2):
        torch.testing.assert_close(views[:, copy], ground.features(name, "test")[rows], rtol=1e-4, atol=1e-5)


def test_views_differ_between_copies_but_not_between_calls_or_neighbours(make_ground: Make) -> None:
    rows = torch.tensor([0, 9, 2])
    first = make_ground().view_features(ENCODER, "test", rows, 3)
    assert not torch.allclose(first[:, 0], first[:, 2])
    torch.testing.assert_close(make_ground().view_features(ENCODER, "test", rows[1:], 3), first[1:])
    other = make_ground(seed=1).view_features(ENCODER, "test", rows, 3)
    assert not torch.allclose(first, other)


def test_pixels_of_the_views_are_what_is_encoded(ground: Ground) -> None:
    rows = torch.tensor([4, 1])
    pixels = torch.cat(list(ground.view_pixels("test", rows, 2)))
    assert pixels.shape == (2, 2, 3, 16, 16)
    assert float(pixels.min()) >= 0
    assert float(pixels.max()) <= 1
    with torch.no_grad():
        again = ground.encode(ENCODER, pixels[:, 1])
    torch.testing.assert_close(ground.view_features(ENCODER, "test", rows, 2)[:, 1], again, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_pixels(ground: Ground) -> None:
    images = next(ground.images("test", torch.tensor([0, 1]))).requires_grad_()
    ground.encode(ENCODER, images).sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0


def test_features_come_from_disk_the_second_time(make_ground: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.arange(5)
    first = make_ground()
    expected = first.features(ENCODER, "test"), first.view_features(ENCODER, "test", rows, 2)

    def fail(*_: object) -> None:
        raise AssertionError("the encoder was asked again")

    monkeypatch.setattr(Ground, "_forward", fail)
    again = make_ground()
    assert torch.equal(again.features(ENCODER, "test"), expected[0])
    assert torch.equal(again.view_features(ENCODER, "test", rows, 2), expected[1])
    with pytest.raises(AssertionError, match="asked again"):
        make_ground(seed=3).view_features(ENCODER, "test", rows, 2)
    with torch.no_grad():
        next(again.modules[ENCODER].parameters()).mul_(2)  # type: ignore[union-attr]
    changed = Ground(
        again.settings, again.device, again.card, again.train, again.test, again.modules, again.class_names
    )
    with pytest.raises(AssertionError, match="asked again"):
        changed.features(ENCODER, "test")


def test_a_damaged_file_is_computed_again(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    first = cache.get(("a",), lambda: torch.arange(3.0))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-4])
    assert torch.equal(cache.get(("a",), lambda: torch.arange(3.0)), first)
    assert torch.equal(FeatureCache(tmp_path).get(("a",), lambda: torch.zeros(3)), first)


def test_a_full_disk_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise ResourceError("No space left.", "Free some.")

    monkeypatch.setattr(feature_cache, "write_atomically", full)
    assert FeatureCache(tmp_path).get(("a",), lambda: torch.ones(2)).sum() == 2
    assert not list(tmp_path.iterdir())


def test_the_oldest_features_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "LIMIT", 1000)
    cache = FeatureCache(tmp_path)
    for number in range(5):
        cache.get((str(number),), lambda: torch.zeros(100))  # 400 bytes and a header
        for age, file in enumerate(sorted(tmp_path.iterdir(), key=lambda f: -f.stat().st_mtime)):
            os.utime(file, (1e9 - age, 1e9 - age))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 1000
    assert torch.equal(cache.get(("4",), lambda: torch.ones(100)), torch.zeros(100)), "the newest was kept"


def test_weights_are_known_by_content_and_layout() -> None:
    one, same = nn.Linear(3, 2), nn.Linear(3, 2)
    same.load_state_dict(one.state_dict())
    assert hash_of_weights(one) == hash_of_weights(same)
    assert hash_of_weights(one) != hash_of_weights(nn.Sequential(one))
    with torch.no_grad():
        same.bias[1] += 1e-7
    assert hash_of_weights(one) != hash_of_weights(same)


def test_the_stated_channel_is_as_sharp_in_any_dimension(make_ground: Make) -> None:
    ground = make_ground()
    for name in (ENCODER, RANDOM, PIXELS):
        dim, kappa = ground.features(name, "test").shape[1], ground.kappa(name)
        divergence = kappa * von_mises_fisher(dim, kappa).mean_resultant_length / np.log(2)
        assert divergence == pytest.approx(10, rel=1e-9)
    assert make_ground(kappa=3.0).kappa(ENCODER) == 3.0


def test_rows_are_balanced_and_repeatable(ground: Ground) -> None:
    rows = ground.rows("test", 12)
    assert np.bincount(ground.test.labels[rows]).tolist() == [3, 3, 3, 3]
    assert torch.equal(rows, ground.rows("test", 12))
    assert len(ground.rows("test", 1000)) == 40

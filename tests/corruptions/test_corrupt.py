"""Every kind: range and levels, one image alone or among others, seeds, severities, and faults in sentences."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from compressl.corruptions import CATEGORIES, EXTRA, KINDS, SEVERITIES, corrupt
from compressl.errors import UsageError

Scenes = Callable[[int, int], Tensor]
DETERMINISTIC = {
    "defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "gaussian_blur", "saturate",
}  # fmt: skip
# Their published numbers do not rise together, so that a severity may change the image less than the one before:
# glass takes more steps with less blur, frost covers more of a darkened image, the affine part of the elastic
# transform shrinks, and saturation is first taken away, then added.
NOT_MONOTONE = {"glass_blur", "frost", "elastic_transform", "saturate"}


def test_there_are_fifteen_kinds_in_four_categories_and_four_more() -> None:
    assert len(KINDS) == 15
    assert [len(kinds) for kinds in CATEGORIES.values()] == [3, 4, 4, 4]
    assert len({*KINDS, *EXTRA}) == 19


@pytest.mark.parametrize("kind", [*KINDS, *EXTRA])
@pytest.mark.parametrize("size", [16, 32, 96])
def test_levels_batches_and_keys(kind: str, size: int, scenes: Scenes) -> None:
    images, keys = scenes(3, size), torch.tensor([5, 2, 11])
    for severity in (1, 5):
        out = corrupt(images, kind, severity, keys)
        assert out.shape == images.shape
        assert out.dtype == torch.float32
        assert 0 <= out.min() <= out.max() <= 1
        assert torch.equal((out * 255).round() / 255, out), "not of 256 levels"
        assert not torch.equal(out, images)
        order = torch.tensor([2, 0, 1])
        assert torch.equal(corrupt(images[order], kind, severity, keys[order]), out[order])
        assert torch.equal(corrupt(images[1:2], kind, severity, keys[1:2]), out[1:2])


@pytest.mark.parametrize("kind", [*KINDS, *EXTRA])
def test_images_and_seeds_have_draws_of_their_own(kind: str, scenes: Scenes) -> None:
    image = scenes(1, 32).expand(2, -1, -1, -1)
    first, second = corrupt(image, kind, 3, torch.tensor([0, 1]))
    other = corrupt(image[:1], kind, 3, torch.tensor([0]), seed=1)[0]
    assert torch.equal(first, second) == (kind in DETERMINISTIC)
    assert torch.equal(first, other) == (kind in DETERMINISTIC)


@pytest.mark.parametrize("kind", [*KINDS, *EXTRA])
@pytest.mark.parametrize("size", [32, 80])
def test_severity_rises(kind: str, size: int, scenes: Scenes) -> None:
    images = scenes(24, size)
    keys = torch.arange(len(images))
    change = [(corrupt(images, kind, s, keys) - images).square().mean().item() for s in SEVERITIES]
    if kind not in NOT_MONOTONE and not (kind == "pixelate" and size == 32):  # 27 of 32 pixels fit some scenes better
        assert all(later > 0.98 * earlier for earlier, later in pairwise(change)), change
    else:
        assert min(change) > 1e-4


def test_large_batches_are_worked_on_in_parts(scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    images, keys = scenes(5, 32), torch.arange(5)
    whole = corrupt(images, "spatter", 2, keys)
    monkeypatch.setattr("compressl.corruptions._AT_ONCE", {"cpu": 2 * 3 * 32 * 32})
    assert torch.equal(corrupt(images, "spatter", 2, keys), whole)


def test_images_are_rounded_to_levels_first(scenes: Scenes) -> None:
    images, keys = scenes(2, 32), torch.arange(2)
    assert torch.equal(
        corrupt((images + 0.3 / 255).clamp(max=1), "contrast", 2, keys), corrupt(images, "contrast", 2, keys)
    )


def test_black_white_and_no_images() -> None:
    for value in (0.0, 1.0):
        images = torch.full((2, 3, 16, 16), value)
        for kind in (*KINDS, *EXTRA):
            assert bool(torch.isfinite(corrupt(images, kind, 5, torch.arange(2))).all()), kind
    assert corrupt(torch.zeros(0, 3, 16, 16), "fog", 1, torch.arange(0)).shape == (0, 3, 16, 16)


def test_faults_are_sentences() -> None:
    images, keys = torch.zeros(2, 3, 16, 16), torch.arange(2)
    with pytest.raises(UsageError, match=r"no corruption 'rain'.*Known: gaussian_noise"):
        corrupt(images, "rain", 1, keys)
    with pytest.raises(UsageError, match="Severity 6"):
        corrupt(images, "fog", 6, keys)
    with pytest.raises(ValueError, match="as many keys"):
        corrupt(images, "fog", 1, keys[:1])
    with pytest.raises(ValueError, match=r"\[B, 3, S, S\]"):
        corrupt(images[:, :1], "fog", 1, keys)
    with pytest.raises(ValueError, match="finite and in"):
        corrupt(images.fill_(float("nan")), "fog", 1, keys)

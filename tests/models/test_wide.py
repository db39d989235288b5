"""The wide representation: its formula, its published sizes, and an encoder that keeps its names and its file."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressl.errors import CheckpointError, UsageError
from compressl.models import EncoderCard, create_encoder, load_encoder, save_encoder
from compressl.models.resnet import ResNet
from compressl.models.wide import Wide
from compressl.settings.encoder import EncoderSettings

NARROW = EncoderSettings("resnet18", width=0.125)
WIDE = dataclasses.replace(NARROW, dim=192)
CARD = EncoderCard("resnet18", 0.125, True, 192, 16, (0.5,) * 3, (0.25,) * 3, seed=3, dim=192)


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("depth", "small_stem", "dim", "added", "total"),
    [
        ("resnet50", False, 8192, 7_620_608, 31_128_640),
        ("resnet50", False, 4096, 5_515_264, 29_023_296),
        ("resnet18", True, 2048, 3_676_160, 14_844_992),
    ],
)
def test_published_sizes(depth: str, small_stem: bool, dim: int, added: int, total: int) -> None:
    with torch.device("meta"):
        narrow, wide = (ResNet(depth, small_stem=small_stem, dim=d) for d in (None, dim))
    assert wide.num_features == dim
    assert _count(wide) == total
    assert _count(wide) - _count(narrow) == added


def _trained(channels: int, dim: int) -> Wide:
    """With statistics and scales as after a training."""
    wide, generator = Wide(channels, dim).double(), torch.Generator().manual_seed(0)
    for name, value in wide.state_dict().items():
        if "bn" in name and value.is_floating_point():
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return wide.eval()


def _formula(wide: Wide, x: Tensor, tiles: int) -> Tensor:
    def norm(y: Tensor, bn: nn.BatchNorm2d) -> Tensor:
        mean, var, scale, shift = (
            v[:, None, None] for v in (bn.running_mean, bn.running_var, bn.weight, bn.bias) if v is not None
        )
        return scale * (y - mean) / (var + 1e-5).sqrt() + shift

    y = norm(torch.einsum("nchw,oc->nohw", x, wide.conv1.weight[:, :, 0, 0]), wide.bn1).relu()
    y = norm(F.conv2d(y, wide.conv2.weight, padding=1), wide.bn2).relu()
    y = norm(torch.einsum("nchw,oc->nohw", y, wide.conv3.weight[:, :, 0, 0]), wide.bn3)
    return (y + torch.cat([x] * tiles, 1)).relu() if tiles else y.relu()


@pytest.mark.parametrize(("dim", "tiles"), [(24, 3), (8, 1), (20, 0), (4, 0)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_the_formula(dim: int, tiles: int, layout: torch.memory_format) -> None:
    x = torch.randn(2, 8, 5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x.contiguous(memory_format=layout)
    wide = _trained(8, dim)
    torch.testing.assert_close(wide(x), _formula(wide, x, tiles))
    if tiles > 1:  # the block of all channels is repeated, not each channel
        y = x.repeat_interleave(tiles, 1)
        without = _formula(wide, torch.zeros_like(x), 0)
        assert without.shape == y.shape
        torch.nn.init.zeros_(wide.bn3.weight)
        torch.nn.init.zeros_(wide.bn3.bias)
        torch.testing.assert_close(wide(x), torch.cat([x] * tiles, 1).relu())
        assert not torch.allclose(wide(x), y.relu())


def test_the_tiled_map_keeps_the_memory_layout() -> None:
    x = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    wide = Wide(8, 24).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert wide(x).is_contiguous(memory_format=torch.channels_last)


def test_it_starts_as_in_the_released_code() -> None:
    torch.manual_seed(0)
    wide = Wide(256, 1024)
    assert wide.conv1.weight.std().item() == pytest.approx(1 / math.sqrt(512), rel=0.01)
    assert wide.conv1.weight.abs().max().item() > 3 / math.sqrt(512)  # not cut off
    for conv, fan_in in ((wide.conv2, 9 * 512), (wide.conv3, 512)):
        assert conv.weight.std().item() == pytest.approx(1 / math.sqrt(fan_in), rel=0.01)
        assert conv.weight.abs().max().item() <= 2 / math.sqrt(fan_in) / 0.8796 + 1e-6
    assert all(bool((bn.weight == 1).all()) for bn in (wide.bn1, wide.bn2, wide.bn3))


def test_the_features_have_more_dimensions_than_the_last_stage_has_channels() -> None:
    encoder = create_encoder(WIDE, 16)
    x = torch.randn(256, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, narrow = encoder(x).double(), create_encoder(NARROW, 16)(x).double()
    assert features.shape == (256, 192)
    assert encoder.num_features == 192
    rank, own = (int(torch.linalg.matrix_rank(f - f.mean(0), rtol=1e-6)) for f in (features, narrow))
    assert own <= 64 < rank  # a linear map of the narrow features would keep their rank


def test_the_resnet_in_it_is_the_same_and_keeps_its_names(torchvision_models: Any) -> None:
    wide, narrow = create_encoder(WIDE, 16, seed=1).state_dict(), create_encoder(NARROW, 16, seed=1).state_dict()
    ours = {name for name in wide if name.startswith("wide.")}
    assert set(wide) - ours == set(narrow)
    assert all(torch.equal(wide[name], narrow[name]) for name in narrow)
    theirs = torchvision_models.resnet18()
    theirs.fc = nn.Identity()
    large = ResNet("resnet18", dim=1024).state_dict()
    missing = theirs.load_state_dict(large, strict=False)
    assert not missing.missing_keys
    assert {name.split(".")[0] for name in missing.unexpected_keys} == {"wide"}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    encoder = create_encoder(WIDE, 16, seed=3)
    encoder(torch.randn(4, 3, 16, 16))  # running statistics that differ from the initial ones
    save_encoder(encoder, CARD, tmp_path)
    return tmp_path


def test_it_is_saved_and_loaded_whole(saved: Path) -> None:
    encoder, card = load_encoder(saved)
    assert card == CARD
    assert card.settings() == dataclasses.replace(WIDE, stem="small")
    again, _ = load_encoder(saved)
    x = torch.randn(3, 3, 16, 16)
    assert encoder(x).shape == (3, 192)
    assert torch.equal(encoder(x), again(x))


@pytest.mark.parametrize("dim", [None, 128, 64])
def test_a_card_of_another_dimension_does_not_fit(saved: Path, dim: int | None) -> None:
    (saved / "encoder.json").write_text(json.dumps(dataclasses.asdict(CARD) | {"dim": dim}))
    with pytest.raises(CheckpointError, match="do not fit"):
        load_encoder(saved)


@pytest.mark.parametrize("dim", [0, -3, 10**9, 192.0, "192", True])
def test_a_strange_dimension_on_a_card_is_a_sentence(saved: Path, dim: object) -> None:
    (saved / "encoder.json").write_text(json.dumps(dataclasses.asdict(CARD) | {"dim": dim}))
    with pytest.raises(CheckpointError, match=str(saved)):
        load_encoder(saved)


def test_a_card_from_before_there_was_a_dimension(tmp_path: Path) -> None:
    old = dataclasses.asdict(dataclasses.replace(CARD, dim=None, num_features=64))
    save_encoder(create_encoder(NARROW, 16), dataclasses.replace(CARD, dim=None), tmp_path)
    del old["dim"]
    (tmp_path / "encoder.json").write_text(json.dumps(old))
    encoder, card = load_encoder(tmp_path)
    assert card.dim is None
    assert encoder(torch.zeros(1, 3, 16, 16)).shape == (1, 64)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (EncoderSettings("timm/resnet10t", dim=1024), "encoder.dim is for our ResNets"),
        (EncoderSettings(dim=0), "encoder.dim lies between"),
        (EncoderSettings(dim=10**6), "encoder.dim lies between"),
    ],
)
def test_impossible_dimensions_are_refused_with_a_sentence(settings: EncoderSettings, sentence: str) -> None:
    (problem,) = settings.check()
    assert problem.startswith(sentence)
    with pytest.raises(UsageError, match=sentence):
        create_encoder(settings, 32)

"""Encoders by name and on disk."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from compressl.errors import CheckpointError, ResourceError, UsageError
from compressl.models import EncoderCard, create_encoder, load_encoder, save_encoder
from compressl.models.encoders import import_timm
from compressl.settings.encoder import EncoderSettings

CARD = EncoderCard("resnet18", 0.125, True, 64, 32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), seed=3)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    encoder = create_encoder(EncoderSettings("resnet18", width=0.125), 32, seed=3)
    encoder(torch.randn(4, 3, 32, 32))  # running statistics that differ from the initial ones
    save_encoder(encoder, CARD, tmp_path)
    return tmp_path


def test_weights_depend_on_the_seed_alone() -> None:
    settings = EncoderSettings("resnet18", width=0.125)
    torch.manual_seed(5)
    first = create_encoder(settings, 32, seed=1).state_dict()
    torch.manual_seed(6)
    before = torch.rand(1, generator=None)
    torch.manual_seed(6)
    again, other = create_encoder(settings, 32, seed=1).state_dict(), create_encoder(settings, 32, seed=2).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    assert torch.equal(before, torch.rand(1)), "the caller's random state was used up"


def test_a_saved_encoder_gives_the_same_features(saved: Path) -> None:
    encoder, card = load_encoder(saved)
    again, _ = load_encoder(saved)
    x = torch.randn(3, 3, 32, 32)
    assert card == CARD
    assert not encoder.training
    assert torch.equal(encoder(x), again(x))


def test_the_file_loads_into_torchvision(saved: Path, torchvision_models: object) -> None:
    import safetensors.torch

    weights = safetensors.torch.load_file(saved / "encoder.safetensors")
    theirs = torchvision_models.resnet18()  # type: ignore[attr-defined]
    assert set(weights) == {k for k in theirs.state_dict() if not k.startswith("fc.")}


@pytest.mark.parametrize("name", ["encoder.safetensors", "encoder.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half"])
def test_damage_is_a_sentence(saved: Path, name: str, damage: str) -> None:
    file = saved / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "half" else b"")
    with pytest.raises(CheckpointError, match=str(saved)):
        load_encoder(saved)


def test_a_flipped_bit_is_found(saved: Path) -> None:
    file = saved / "encoder.safetensors"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        load_encoder(saved)


def test_weights_of_another_encoder_are_refused(saved: Path) -> None:
    card = dataclasses.asdict(CARD) | {"width": 0.25}
    (saved / "encoder.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match="do not fit"):
        load_encoder(saved)


@pytest.mark.parametrize(
    "strange",
    [
        {"name": "timm/hf-hub:someone/model"},
        {"name": 3},
        {"name": "resnet19"},
        {"width": "x"},
        {"width": float("inf")},
        {"width": 1e9},
        {"size": 0},
        {"std": [0.0, 1.0, 1.0]},
        {"mean": [0.5]},
        {"surprise": 1},
    ],
)
def test_a_strange_card_is_a_sentence_and_no_download(saved: Path, strange: dict[str, object]) -> None:
    (saved / "encoder.json").write_text(json.dumps(dataclasses.asdict(CARD) | strange))
    with pytest.raises(CheckpointError, match=str(saved)):
        load_encoder(saved)


def test_a_pickle_in_place_of_weights_runs_nothing(saved: Path) -> None:
    sentinel = saved / "sentinel"

    class Evil:
        def __reduce__(self) -> object:
            return (Path.touch, (sentinel,))

    torch.save(Evil(), saved / "encoder.safetensors")
    with pytest.raises(CheckpointError):
        load_encoder(saved)
    assert not sentinel.exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot be written"):
        save_encoder(create_encoder(EncoderSettings(width=0.125), 32), CARD, tmp_path / "nowhere")


def test_timm_models_by_name() -> None:
    try:
        import_timm()
    except UsageError as error:
        pytest.skip(str(error))
    encoder = create_encoder(EncoderSettings("timm/resnet10t"), 32)
    assert encoder(torch.zeros(2, 3, 32, 32)).shape == (2, encoder.num_features)
    vit = create_encoder(EncoderSettings("timm/vit_tiny_patch16_224"), 32)
    assert vit(torch.zeros(2, 3, 32, 32)).shape == (2, 192)
    with pytest.raises(UsageError, match="no name of a model"):
        create_encoder(EncoderSettings("timm/hf-hub:someone/model"), 32)
    with pytest.raises(UsageError, match="cannot build 'resnet10tt'"):
        create_encoder(EncoderSettings("timm/resnet10tt"), 32)

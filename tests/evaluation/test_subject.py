"""Opening what is to be measured: runs, files, names; what is missing is said."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import pytest
import safetensors.torch
import torch

from compressl.errors import CheckpointError, UsageError
from compressl.evaluation.subject import open_subject
from compressl.methods import create_method
from compressl.methods.saved import load_heads, save_heads
from compressl.models import EncoderCard, create_encoder, save_encoder
from compressl.models.encoders import import_timm
from compressl.settings.encoder import EncoderSettings
from compressl.settings.evaluate import EvaluateSettings
from compressl.settings.methods import BYOLSettings, StochConSettings
from compressl.settings.pretrain import DataSettings, PretrainSettings
from compressl.settings.toml import to_toml

NARROW = EncoderSettings("resnet18", width=0.125)
CARD = EncoderCard("resnet18", 0.125, True, 64, 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
STOCHCON = StochConSettings(hidden=16, dim=8, latent_dim=24)


def settings(run: Path | str, **fields: object) -> EvaluateSettings:
    return EvaluateSettings(run=Path(run), data="x", **fields)  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    encoder = create_encoder(NARROW, 16, seed=1)
    method = create_method(STOCHCON, encoder, 64, seed=1)
    save_encoder(encoder, CARD, tmp_path)
    save_heads(method, STOCHCON, tmp_path)
    training = PretrainSettings(data=DataSettings("digits"), method=STOCHCON, encoder=NARROW)
    (tmp_path / "config.toml").write_text(to_toml(training))
    return tmp_path


def test_a_run_brings_its_heads_and_its_views(run: Path) -> None:
    subject = open_subject(settings(run), 32)
    assert subject.training is not None
    assert subject.training.method == STOCHCON
    assert subject.method is not None
    assert subject.method.encoder is subject.encoder
    image = torch.rand(3, 3, 16, 16)
    expected = create_method(STOCHCON, create_encoder(NARROW, 16, seed=1), 64, seed=1).eval()
    assert torch.equal(subject.method.bits(image), expected.bits(image))  # type: ignore[attr-defined,operator]


def test_an_encoder_alone_is_enough(run: Path) -> None:
    for name in ("heads.json", "config.toml"):
        (run / name).unlink()
        subject = open_subject(settings(run / "encoder.safetensors"), 32)
        assert subject.method is None
        assert subject.card == open_subject(settings(run), 32).card


def test_damaged_heads_are_named(run: Path) -> None:
    with pytest.raises(CheckpointError, match="of stochcon"):
        load_heads(run, create_encoder(NARROW, 16), 64, BYOLSettings())
    (run / "heads.safetensors").write_bytes((run / "heads.safetensors").read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="heads") as refusal:
        open_subject(settings(run), 32)
    assert "heads.json" in refusal.value.next_step


def test_heads_of_other_settings_are_refused(run: Path) -> None:
    (run / "config.toml").write_text((run / "config.toml").read_text().replace("latent_dim = 24", "latent_dim = 8"))
    with pytest.raises(CheckpointError, match="damaged"):
        open_subject(settings(run), 32)


def test_random_weights_by_name() -> None:
    first, again = (open_subject(settings("random/resnet18"), 32) for _ in range(2))
    assert (first.card.size, first.card.small_stem) == (32, True)
    assert torch.equal(first.encoder.conv1.weight, again.encoder.conv1.weight)  # type: ignore[union-attr,arg-type]
    other = open_subject(settings("random/resnet18", seed=1, size=96), 32)
    assert (other.card.size, other.card.small_stem) == (96, False)
    with pytest.raises(UsageError, match="resnet19"):
        open_subject(settings("random/resnet19"), 32)


def test_a_file_of_weights_needs_its_architecture(tmp_path: Path) -> None:
    encoder = create_encoder(EncoderSettings("resnet18"), 32, seed=4)
    weights = {**encoder.state_dict(), "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}
    file = tmp_path / "published.safetensors"
    safetensors.torch.save_file(weights, file)
    with pytest.raises(CheckpointError, match="architecture"):
        open_subject(settings(file), 32)
    subject = open_subject(settings(file, architecture="resnet18"), 32)
    assert torch.equal(subject.encoder.conv1.weight, encoder.conv1.weight)  # type: ignore[union-attr,arg-type]
    with pytest.raises(CheckpointError, match="not those of resnet34"):
        open_subject(settings(file, architecture="resnet34"), 32)
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_subject(settings(tmp_path / "none.safetensors", architecture="resnet18"), 32)


def test_what_is_no_encoder_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no finished encoder"):
        open_subject(settings(tmp_path), 32)
    with pytest.raises(CheckpointError, match="random/resnet18"):
        open_subject(settings("resnet18"), 32)


def test_a_timm_model_brings_its_own_size_and_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    timm = import_timm()
    asked: list[EncoderSettings] = []

    def create(given: EncoderSettings, size: int, seed: int = 0) -> torch.nn.Module:
        asked.append(given)
        return create_encoder(dataclasses.replace(given, pretrained=False), size, seed)  # a download, else

    monkeypatch.setattr("compressl.evaluation.subject.create_encoder", create)
    subject = open_subject(settings("timm/resnet18.a1_in1k"), 32)
    assert asked[0].pretrained
    config = timm.get_pretrained_cfg("resnet18.a1_in1k")
    assert (subject.card.size, subject.card.mean) == (config.input_size[-1], tuple(config.mean))
    assert open_subject(settings("timm/resnet18.a1_in1k", size=64), 32).card.size == 64
    with pytest.raises(UsageError, match="knows no timm/resnet18_of_nobody"):
        open_subject(settings("timm/resnet18_of_nobody"), 32)

    file = tmp_path / "timm.safetensors"
    safetensors.torch.save_file(timm.create_model("resnet18", num_classes=3).state_dict(), file)
    assert open_subject(settings(file, architecture="timm/resnet18"), 32).card.num_features == 512

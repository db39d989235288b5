"""Opening whatever encoder is to be measured: a run, a file of weights, a name of timm's, or random weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from compressl.errors import CheckpointError, CompresslError
from compressl.methods import Method
from compressl.methods.saved import load_heads
from compressl.models import EncoderCard, create_encoder, load_encoder
from compressl.models.encoders import load_weights, preprocessing
from compressl.runs import RunFolder
from compressl.settings.encoder import RESNETS, EncoderSettings
from compressl.settings.evaluate import EvaluateSettings
from compressl.settings.loading import load_pretrain
from compressl.settings.pretrain import PretrainSettings
from compressl.settings.views import IMAGENET_MEAN, IMAGENET_STD, ViewsSettings


@dataclass(frozen=True)
class Subject:
    """An encoder with what is known of its training."""

    encoder: nn.Module
    card: EncoderCard
    method: Method | None = None
    """The encoder with its trained heads."""
    training: PretrainSettings | None = None

    @property
    def views(self) -> ViewsSettings:
        """The views that it was trained with, or the defaults."""
        return self.training.views if self.training else ViewsSettings()


def is_name(spec: str) -> bool:
    """Whether a spec names a model instead of a place.

    >>> is_name("timm/resnet50"), is_name("random/resnet18"), is_name("runs/photos")
    (True, True, False)
    """
    return spec.startswith(("timm/", "random/"))


def open_subject(settings: EvaluateSettings, data_size: int) -> Subject:
    """The encoder that ``settings.run`` names.

    A run folder (or one with encoder.safetensors and encoder.json), a file of weights with ``settings.architecture``,
    ``timm/<name>`` with published weights, or ``random/<name>``.

    Args:
        data_size: side that suits the images, for a model that does not bring its own.

    Raises:
        CheckpointError: there is no encoder, or it is damaged.
        UsageError: an unknown name.
    """
    spec, size = settings.run, settings.size
    if is_name(spec.as_posix()):
        return _named(spec.as_posix(), size, data_size, settings.seed)
    if settings.architecture is not None:
        encoder = load_weights(spec, settings.architecture, size or data_size)
        return Subject(encoder, _card(EncoderSettings(settings.architecture), encoder, size, data_size))
    folder = spec.parent if spec.suffix == ".safetensors" else spec
    if spec.suffix == ".safetensors" and (spec.name != "encoder.safetensors" or not (folder / "encoder.json").exists()):
        raise CheckpointError(
            f"{spec} does not say what its architecture is.",
            "Say it: --architecture resnet50, say, or timm/<name>; or put the encoder.json of its training beside it.",
        )
    if spec.as_posix() in RESNETS:
        raise CheckpointError(f"{spec} is no folder.", f"For an encoder without training say random/{spec}.")
    encoder, card = load_encoder(folder)
    training = _training(RunFolder(folder))
    method = load_heads(folder, encoder, card.num_features, training.method) if training else None
    return Subject(encoder, card, method, training)


def _named(spec: str, size: int | None, data_size: int, seed: int) -> Subject:
    kind, _, name = spec.partition("/")
    settings = EncoderSettings(spec if kind == "timm" else name, pretrained=kind == "timm", zero_init=False)
    own = preprocessing(spec) if kind == "timm" else None
    encoder = create_encoder(settings, size or (own.size if own else data_size), seed)
    return Subject(encoder.eval(), _card(settings, encoder, size, data_size))


def _card(settings: EncoderSettings, encoder: nn.Module, size: int | None, data_size: int) -> EncoderCard:
    own = preprocessing(settings.name) if settings.name.startswith("timm/") else None
    side = size or (own.size if own else data_size)
    mean, std = (own.mean, own.std) if own else (IMAGENET_MEAN, IMAGENET_STD)
    small, features = settings.small_stem(side), int(encoder.num_features)  # type: ignore[arg-type]
    return EncoderCard(settings.name, settings.width, small, features, side, mean, std)


def _training(run: RunFolder) -> PretrainSettings | None:
    """The settings of the training that left an encoder, or None where they are unknown."""
    if not run.config.is_file():
        return None
    try:
        return load_pretrain(["--config", str(run.config)])[0]
    except (CompresslError, SystemExit):  # of another version, or of other hands: the encoder alone can be measured
        return None

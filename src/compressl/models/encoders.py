"""Encoders by name, and encoders on disk.

An encoder is any ``nn.Module`` that maps images [N, 3, H, W] to features [N, ``num_features``].
``encoder.safetensors`` holds the bare backbone; ``encoder.json`` beside it says how to build it and how it wants to
see an image, so that nothing but the two files is needed to use it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import nn

from compressl.errors import CheckpointError, UsageError
from compressl.files import write_atomically
from compressl.models.resnet import ResNet
from compressl.settings.encoder import EncoderSettings


@dataclass(frozen=True)
class EncoderCard:
    """Everything but the weights: how to build the encoder and how to prepare an image for it."""

    name: str
    width: float
    small_stem: bool
    num_features: int
    size: int
    """Side of the square input, pixels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear, antialiased"
    seed: int | None = None
    data_fingerprint: str | None = None
    """Of the images that it learnt from: an evaluation says if it meets them again."""
    dim: int | None = None
    """Dimension that was asked for, of a ResNet; None: its own."""

    def settings(self) -> EncoderSettings:
        """The settings that build this encoder."""
        return EncoderSettings(self.name, self.width, "small" if self.small_stem else "imagenet", dim=self.dim)


def create_encoder(settings: EncoderSettings, view_size: int, seed: int = 0) -> nn.Module:
    """A randomly initialised encoder for views of ``view_size`` pixels; the weights depend on ``seed`` alone.

    Raises:
        UsageError: an unknown name, impossible numbers, or timm is needed and not installed.

    >>> encoder = create_encoder(EncoderSettings("resnet18", width=0.25), view_size=32)
    >>> encoder(torch.zeros(2, 3, 32, 32)).shape, encoder.num_features
    (torch.Size([2, 128]), 128)
    """
    if problems := settings.check():
        raise UsageError(" ".join(problems))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if settings.name.startswith("timm/"):
            return _create_timm(settings.name.removeprefix("timm/"), settings.pretrained, view_size)
        return ResNet(
            settings.name,
            width=settings.width,
            small_stem=settings.small_stem(view_size),
            zero_init=settings.zero_init,
            dim=settings.dim,
        )


def _create_timm(name: str, pretrained: bool, size: int) -> nn.Module:
    timm = import_timm()
    if not re.fullmatch(r"[A-Za-z0-9_.]+", name):  # timm would take "hf-hub:..." as an order to download
        raise UsageError(
            f"timm/{name} is no name of a model.", "`python -m timm.models` and timm's documentation list them."
        )
    try:
        try:  # a transformer must be told the size of its images
            model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, img_size=size)
        except TypeError:
            model = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except RuntimeError as error:
        near = timm.list_models(f"*{name.split('.')[0][:6]}*")[:5]
        raise UsageError(
            f"timm cannot build {name!r}: {error}.", f"Names that come near: {', '.join(near) or 'none'}."
        ) from error
    return model


def import_timm() -> Any:
    """timm, also beside a CPU build of torch (see :func:`define_torchvision_operators`).

    Raises:
        UsageError: it is not installed, or cannot be imported.
    """
    define_torchvision_operators()
    try:
        import timm
    except ModuleNotFoundError as error:
        raise UsageError("This encoder needs timm.", "Install it: pip install 'compressl[timm]'.") from error
    except (ImportError, RuntimeError) as error:
        raise UsageError(f"timm is installed but fails to import: {error}.", "`compressl doctor` explains.") from error
    return timm


class Preprocessing(NamedTuple):
    """How a published encoder wants its images."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def preprocessing(name: str) -> Preprocessing:
    """Side, mean and deviation that the published weights of ``timm/<name>`` were trained with.

    Raises:
        UsageError: timm is not installed, or knows no such model.
    """
    timm = import_timm()
    config = timm.get_pretrained_cfg(name.removeprefix("timm/"))
    if config is None:
        near = timm.list_models(f"*{name.removeprefix('timm/').split('.')[0][:6]}*")[:5]
        raise UsageError(f"timm knows no {name}.", f"Names that come near: {', '.join(near) or 'none'}.")
    return Preprocessing(int(config.input_size[-1]), tuple(config.mean), tuple(config.std))


def load_weights(file: Path, name: str, size: int) -> nn.Module:
    """An encoder of a known architecture from a file of weights with torchvision's or timm's names.

    The weights of a classifier on top (``fc``, ``head``, ``classifier``) are left out.

    Raises:
        CheckpointError: the file is missing or damaged, or its weights are of another architecture.
        UsageError: an unknown name.
    """
    encoder = create_encoder(EncoderSettings(name), size)
    try:
        weights = safetensors.torch.load(file.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}.", "Give a .safetensors file.") from error
    weights = {k: v for k, v in weights.items() if not k.startswith(("fc.", "head.", "classifier."))}
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).strip().splitlines()
        raise CheckpointError(
            f"The weights in {file} are not those of {name}: {' '.join(line.strip() for line in first[1:2])}",
            "Name their architecture: --architecture resnet50, say, or timm/<name>.",
        ) from error
    return encoder.eval()


def define_torchvision_operators() -> None:
    """Let torchvision be imported beside a CPU build of torch.

    The package index's torchvision is built for CUDA; its compiled library does not load beside a CPU torch, and its
    import then stops at operators that nobody defined. Declaring their schemas is all that the import needs: what
    calls the operators themselves (``nms``) still does not work, and nothing here calls them. A torchvision that
    loads is left alone.
    """
    import importlib.util

    if "+cpu" not in torch.__version__ or importlib.util.find_spec("torchvision") is None:
        return
    with contextlib.suppress(RuntimeError):  # defined already, by an earlier call or by a torchvision that loads
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        _LIBRARIES.append(library)


_LIBRARIES: list[torch.library.Library] = []  # a library's definitions vanish with it


def _checked(fields: dict[str, Any]) -> EncoderCard:
    """A card from a file that somebody else may have written.

    Raises:
        ValueError, TypeError, KeyError: a field is absent, strange or impossible.
    """
    card = EncoderCard(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})
    numbers = (card.width, card.size, card.num_features, *card.mean, *card.std)
    if not isinstance(card.name, str) or not isinstance(card.small_stem, bool):
        raise ValueError("encoder.json: name is text and small_stem is true or false")
    if card.dim is not None and type(card.dim) is not int:
        raise ValueError("encoder.json: dim is a whole number or null")
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers) or len(card.mean) + len(card.std) != 6:
        raise ValueError("encoder.json: width, size, num_features, mean and std are finite numbers")
    if not (0 < card.width <= 64 and 1 <= card.size <= 4096 and min(card.std) > 0):
        raise ValueError("encoder.json: width, size or std is out of range")
    if problems := card.settings().check():
        raise ValueError(" ".join(problems))
    return card


def save_encoder(encoder: nn.Module, card: EncoderCard, folder: Path) -> None:
    """Write ``encoder.safetensors`` and ``encoder.json`` into a folder, each whole or not at all."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    content = safetensors.torch.save(weights)
    fields = asdict(card) | {"sha256": hashlib.sha256(content).hexdigest()}
    write_atomically(folder / "encoder.safetensors", content)
    write_atomically(folder / "encoder.json", json.dumps(fields, indent=2).encode())


def load_encoder(folder: Path | str) -> tuple[nn.Module, EncoderCard]:
    """The encoder of a run folder (or of any folder with the two files), in evaluation mode.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the other.
    """
    folder = Path(folder)
    try:
        fields = json.loads((folder / "encoder.json").read_text())
        content = (folder / "encoder.safetensors").read_bytes()
        expected = fields.pop("sha256", None)  # a card written by hand may lack it
        if expected is not None and hashlib.sha256(content).hexdigest() != expected:
            raise ValueError("encoder.safetensors is not what was written (SHA-256 differs)")
        card = _checked(fields)
        weights = safetensors.torch.load(content)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} holds no finished encoder: {Path(error.filename or '').name or 'a file'} is missing.",
            "Give the --out folder of a finished `compressl pretrain`.",
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"The encoder in {folder} is damaged: {error}.", "Take another run, or pretrain again."
        ) from error
    try:
        encoder = create_encoder(card.settings(), card.size)
        encoder.load_state_dict(weights)
    except (RuntimeError, UsageError) as error:
        raise CheckpointError(
            f"The weights in {folder} do not fit encoder.json ({card.name}): {error}", "Take another run."
        ) from error
    return encoder.eval(), card

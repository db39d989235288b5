"""Encoders by name, and encoders on disk.

An encoder is any ``nn.Module`` that maps images [N, 3, H, W] to features [N, ``num_features``].
``encoder.safetensors`` holds the bare backbone; ``encoder.json`` beside it says how to build it and how it wants to
see an image, so that nothing but the two files is needed to use it.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from compressl.errors import CheckpointError, UsageError
from compressl.files import write_atomically
from compressl.models.resnet import DEPTHS, ResNet
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


def create_encoder(settings: EncoderSettings, view_size: int, seed: int = 0) -> nn.Module:
    """A randomly initialised encoder for views of ``view_size`` pixels; the weights depend on ``seed`` alone.

    Raises:
        UsageError: an unknown name, or timm is needed and not installed.

    >>> encoder = create_encoder(EncoderSettings("resnet18", width=0.25), view_size=32)
    >>> encoder(torch.zeros(2, 3, 32, 32)).shape, encoder.num_features
    (torch.Size([2, 128]), 128)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if settings.name.startswith("timm/"):
            return _create_timm(settings.name.removeprefix("timm/"), settings.pretrained)
        if settings.name not in DEPTHS:
            raise UsageError(" ".join(settings.check()))
        return ResNet(settings.name, width=settings.width, small_stem=settings.small_stem(view_size))


def _create_timm(name: str, pretrained: bool) -> nn.Module:
    timm = import_timm()
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0)
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


def save_encoder(encoder: nn.Module, card: EncoderCard, folder: Path) -> None:
    """Write ``encoder.safetensors`` and ``encoder.json`` into a folder, each whole or not at all."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    write_atomically(folder / "encoder.safetensors", safetensors.torch.save(weights))
    write_atomically(folder / "encoder.json", json.dumps(asdict(card), indent=2).encode())


def load_encoder(folder: Path | str) -> tuple[nn.Module, EncoderCard]:
    """The encoder of a run folder (or of any folder with the two files), in evaluation mode.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the other.
    """
    folder = Path(folder)
    try:
        fields = json.loads((folder / "encoder.json").read_text())
        card = EncoderCard(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})
        weights = safetensors.torch.load_file(folder / "encoder.safetensors")
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} holds no finished encoder: {Path(error.filename or '').name or 'a file'} is missing.",
            "Give the --out folder of a finished `compressl pretrain`.",
        ) from error
    except (ValueError, TypeError, KeyError, OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"The encoder in {folder} is damaged: {error}.", "Take another run, or pretrain again."
        ) from error
    stem = "small" if card.small_stem else "imagenet"
    encoder = create_encoder(EncoderSettings(card.name, card.width, stem), card.size)  # type: ignore[arg-type]
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"The weights in {folder} do not fit encoder.json ({card.name}): {error}", "Take another run."
        ) from error
    return encoder.eval(), card

"""A method's heads beside its encoder on disk: what is needed to see an encoder as the density that it was trained as.

``heads.safetensors`` holds everything of a method but its encoder; what built it stands in the run's ``config.toml``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import safetensors.torch
from torch import nn

from compressl.errors import CheckpointError
from compressl.files import write_atomically
from compressl.methods import Method, create_method
from compressl.settings.methods import MethodSettings

FILE, CARD = "heads.safetensors", "heads.json"


def save_heads(method: Method, settings: MethodSettings, folder: Path) -> None:
    """Write the heads into a folder, each file whole or not at all."""
    states = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in method.state_dict().items()
        if not name.startswith("encoder.")
    }
    content = safetensors.torch.save(states)
    card = {"method": settings.name, "sha256": hashlib.sha256(content).hexdigest()}
    write_atomically(folder / FILE, content)
    write_atomically(folder / CARD, json.dumps(card, indent=2))


def load_heads(folder: Path, encoder: nn.Module, features: int, settings: MethodSettings) -> Method | None:
    """The method around its trained encoder, in evaluation mode; None where no heads were saved.

    Raises:
        CheckpointError: they are damaged, or of another method or size than the settings.
    """
    if not (folder / CARD).exists():
        return None
    try:
        card = json.loads((folder / CARD).read_text())
        content = (folder / FILE).read_bytes()
        if hashlib.sha256(content).hexdigest() != card["sha256"]:
            raise ValueError(f"{FILE} is not what was written (SHA-256 differs)")
        if card["method"] != settings.name:
            raise ValueError(f"they are of {card['method']}, config.toml says {settings.name}")
        method = create_method(settings, encoder, features)
        wanted = {name for name in method.state_dict() if not name.startswith("encoder.")}
        states = safetensors.torch.load(content)
        if set(states) != wanted:
            raise ValueError("they do not fit the method's settings in config.toml")
        method.load_state_dict(states, strict=False)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"The heads in {folder} are damaged: {error}.",
            f"Remove {CARD} and {FILE} to evaluate the encoder alone.",
        ) from error
    return method.eval()

"""Features on disk, so that a second look at the same encoder and images costs nothing.

A file is named by a hash of everything that its content depends on: the weights, the transform, the images, the
precision and the kind of device. The oldest go when all of them together pass ``LIMIT``.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressl.errors import ResourceError
from compressl.files import write_atomically

VERSION = 1  # raise it when features change for the same weights, transform and images
LIMIT = 10 * 2**30  # bytes


class FeatureCache:
    """Tensors by the parts of their key; ``folder`` None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, parts: tuple[str, ...], compute: Callable[[], Tensor]) -> Tensor:
        """What is on file under these parts, else what ``compute`` gives, which is then put on file.

        A file that cannot be read is computed again; a disk that is full keeps nothing and stops nothing.
        """
        if self.folder is None:
            return compute()
        name = hashlib.sha256("\n".join((str(VERSION), torch.__version__, *parts)).encode()).hexdigest()[:32]
        path = self.folder / f"{name}.safetensors"
        with contextlib.suppress(OSError, safetensors.SafetensorError, KeyError):
            features = safetensors.torch.load(path.read_bytes())["features"]
            path.touch()
            return features
        features = compute()
        content = safetensors.torch.save({"features": features.detach().cpu().contiguous()})
        with contextlib.suppress(OSError, ResourceError):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._make_room(len(content))
            write_atomically(path, content)
        return features

    def _make_room(self, size: int) -> None:
        assert self.folder is not None
        files = sorted(self.folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
        taken = sum(file.stat().st_size for file in files)
        for file in files:
            if taken + size <= LIMIT:
                return
            taken -= file.stat().st_size
            file.unlink(missing_ok=True)


def hash_of_weights(module: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of a module's parameters and buffers, and its layout.

    >>> a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> hash_of_weights(a) == hash_of_weights(a), hash_of_weights(a) == hash_of_weights(b)
    (True, False)
    """
    digest = hashlib.sha256(str(module).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hash_of_rows(rows: NDArray[np.int64]) -> str:
    """Of the positions of images in their set.

    >>> hash_of_rows(np.arange(3)) == hash_of_rows(np.arange(4))
    False
    """
    return hashlib.sha256(np.ascontiguousarray(rows, dtype="<i8").tobytes()).hexdigest()

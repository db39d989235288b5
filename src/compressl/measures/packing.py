"""Values of every image as text, for comparisons of two records image by image."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray


def pack_bits(values: NDArray[np.bool_]) -> str:
    """One bit for each image.

    >>> unpack_bits(pack_bits(np.array([True, False, True])), 3).tolist()
    [True, False, True]
    """
    return base64.b64encode(np.packbits(values).tobytes()).decode()


def unpack_bits(text: str, count: int) -> NDArray[np.bool_]:
    """The reverse of :func:`pack_bits`."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=count).astype(bool)


def pack_floats(values: NDArray[np.floating]) -> str:
    """Four bytes for each image: float32, little-endian.

    >>> unpack_floats(pack_floats(np.array([0.5, -2.0]))).tolist()
    [0.5, -2.0]
    """
    return base64.b64encode(np.asarray(values, dtype="<f4").tobytes()).decode()


def unpack_floats(text: str) -> NDArray[np.float32]:
    """The reverse of :func:`pack_floats`."""
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)

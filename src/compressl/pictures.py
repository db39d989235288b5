"""Contact sheets: what an encoder saw, and what it finds alike."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

CELL, GAP, FRAME = 80, 6, 4  # pixels
BACKGROUND = (255, 255, 255, 0)  # transparent: the page behind decides
RIGHT, WRONG = (38, 139, 90), (204, 72, 60)  # not by colour alone: the second is drawn thin

Pixels = NDArray[np.uint8]


def sheet(
    rows: Sequence[Sequence[Pixels]], frames: Sequence[Sequence[tuple[int, int, int] | None]] | None = None
) -> bytes:
    """Rows of images uint8 [H, W, 3] of any size as one PNG; the first column stands apart.

    Args:
        frames: a color around each image, or None for none.

    >>> sheet([[np.zeros((4, 8, 3), np.uint8)] * 3])[:4]
    b'\\x89PNG'
    """
    columns = max(len(row) for row in rows)
    step = CELL + 2 * FRAME + GAP
    canvas = Image.new("RGBA", (columns * step + 2 * GAP, len(rows) * step - GAP), BACKGROUND)
    for y, row in enumerate(rows):
        for x, pixels in enumerate(row):
            left, top = x * step + (2 * GAP if x else 0), y * step
            frame = frames[y][x] if frames is not None else None
            if frame is not None:
                thick = 1 if frame == WRONG else FRAME
                side = CELL + 2 * thick
                corner = (left + FRAME - thick, top + FRAME - thick)
                canvas.paste(Image.new("RGBA", (side, side), (*frame, 255)), corner)
            picture = _fit(pixels)
            offset = ((CELL - picture.width) // 2, (CELL - picture.height) // 2)
            canvas.paste(picture, (left + FRAME + offset[0], top + FRAME + offset[1]))
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _fit(pixels: Pixels) -> Image.Image:
    """Into the cell with its proportions; small images are enlarged without blur, so that pixels show."""
    picture = Image.fromarray(pixels).convert("RGBA")
    scale = CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def from_tensor(image: Tensor) -> Pixels:
    """Float [3, H, W] in [0, 1] -> uint8 [H, W, 3]."""
    pixels: Pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return pixels


def from_store(pixels: Pixels, geometry: NDArray[np.integer]) -> Pixels:
    """A stored image, which may be squashed to a square, in the proportions it had: uint8 [H, W, 3]."""
    height, width = int(geometry[0]), int(geometry[1])
    scale = max(pixels.shape[:2]) / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size == (pixels.shape[1], pixels.shape[0]):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))

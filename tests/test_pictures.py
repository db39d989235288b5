"""Contact sheets show images in their own proportions."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from compressl import pictures


def _open(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_rows_of_any_size_and_length() -> None:
    images = [np.full((h, w, 3), 200, dtype=np.uint8) for h, w in ((8, 8), (100, 300), (1, 50))]
    page = _open(pictures.sheet([images, images[:1]]))
    assert page.shape[2] == 4
    step = pictures.CELL + 2 * pictures.FRAME + pictures.GAP
    assert page.shape[:2] == (2 * step - pictures.GAP, 3 * step + 2 * pictures.GAP)
    assert (page[step:, step + 2 * pictures.GAP :, 3] == 0).all(), "there is nothing beside the second row's one image"


def test_frames_have_their_colours() -> None:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    page = _open(pictures.sheet([[image, image]], [[pictures.RIGHT, None]]))
    assert tuple(page[0, 0]) == (*pictures.RIGHT, 255)
    assert page[0, -1, 3] == 0


def test_a_squashed_image_gets_its_shape_back() -> None:
    square = np.zeros((64, 64, 3), dtype=np.uint8)
    assert pictures.from_store(square, np.array([100, 200])).shape == (32, 64, 3)
    assert pictures.from_store(square, np.array([64, 64])) is square


def test_tensors_become_pixels() -> None:
    pixels = pictures.from_tensor(torch.tensor([-1.0, 0.5, 2.0])[:, None, None].expand(3, 2, 4))
    assert pixels.shape == (2, 4, 3)
    assert pixels[0, 0].tolist() == [0, 128, 255]

"""torchvision as the reference, and pictures to augment."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

import pytest
import torch
from torch import Tensor

_KEEP: list[torch.library.Library] = []  # a library's definitions live as long as it does


def _torchvision() -> ModuleType | None:
    """torchvision, also where its build does not fit torch's.

    Beside a CPU build of torch the package index's torchvision fails to load its operators and then, at import, misses
    the schemas of two of them. Nothing here uses these operators, so their schemas alone will do.
    """
    if importlib.util.find_spec("torchvision") is None:
        return None
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        _KEEP.append(library)
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return importlib.import_module("torchvision")


@pytest.fixture(scope="session")
def torchvision() -> ModuleType:
    module = _torchvision()
    if module is None:
        pytest.skip("torchvision is not installed; it is the reference here (pip install torchvision).")
    importlib.import_module("torchvision.transforms.v2")
    return module


@pytest.fixture(scope="session")
def reference(torchvision: ModuleType) -> ModuleType:
    """torchvision's functional operators, for one image at a time."""
    return importlib.import_module("torchvision.transforms.v2.functional")


@pytest.fixture
def noise() -> Tensor:
    """uint8 [12, 40, 40, 3], with every extreme: black, white and one saturated image among them."""
    images = torch.randint(0, 256, (12, 40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[0], images[1] = 0, 255
    images[2] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    images[3] = (images[3] > 127).to(torch.uint8) * 255
    return images


@pytest.fixture
def floats(noise: Tensor) -> Tensor:
    """The same as float32 [12, 3, 40, 40] in [0, 1]."""
    return noise.permute(0, 3, 1, 2).float() / 255

"""Features that several classifiers are tested on."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def blobs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Five overlapping classes in 8 dimensions: train and test."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(5, 8, generator=generator)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(0, 5, (count,), generator=generator)
        return centers[labels] + 0.9 * torch.randn(count, 8, generator=generator), labels

    return (*draw(400), *draw(300))

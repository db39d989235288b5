"""Heads have the parameters that the paper lists; the slow copy follows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressl.models import ema
from compressl.models.heads import linear, mlp


@pytest.mark.parametrize(("inputs", "count"), [(2048, 9_445_376), (256, 2_105_344)])
def test_parameter_counts_of_the_paper(inputs: int, count: int) -> None:
    assert sum(p.numel() for p in mlp(inputs, 4096, 256).parameters()) == count


def test_linear_layers_start_with_variance_one_over_fan_in() -> None:
    torch.manual_seed(0)
    weight = linear(1024, 1024).weight.detach()
    assert weight.std().item() * 32 == pytest.approx(1, abs=0.01)
    assert weight.abs().max().item() <= 2 / 0.8796 / 32 + 1e-6


@pytest.mark.parametrize(
    ("start", "expected"),
    [(0.99, (0.99, 0.991464466094, 0.995, 1.0)), (0.996, (0.996, 0.996585782887, 0.997999989956, 1.0))],
)
def test_momentum_values_of_the_official_schedule(start: float, expected: tuple[float, ...]) -> None:
    total = 93_836 if start == 0.99 else 312_785
    got = [ema.momentum_at(t / total, start) for t in (0, total // 4, total // 2, total)]
    assert got == pytest.approx(expected, abs=5e-9)


def test_update_moves_weights_and_leaves_running_statistics() -> None:
    fast = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    slow = ema.slow_copy(fast)
    assert not any(p.requires_grad for p in slow.parameters())
    start = [p.clone() for p in slow.parameters()]
    with torch.no_grad():
        for p in fast.parameters():
            p.add_(1.0)
    fast(torch.randn(8, 4))
    statistics = slow[1].running_mean.clone()  # type: ignore[union-attr,operator]
    ema.update(slow, fast, 0.9)
    for before, now in zip(start, slow.parameters(), strict=True):
        torch.testing.assert_close(now, before + 0.1)
    assert torch.equal(slow[1].running_mean, statistics)  # type: ignore[arg-type,union-attr]

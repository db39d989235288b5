"""Compiled encoders: the same step, fixed shapes, no trace of the attempt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from compressl.methods import create_method
from compressl.settings.methods import BYOLSettings
from compressl.training.compiling import compile_encoders


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).relu().mean((2, 3))


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[list[torch.Size]]:
    """The shapes of each compilation; without a code generator, which would take long."""
    found: list[list[torch.Size]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        found.append([x.shape for x in inputs if x.ndim == 4 and x.shape[1] == 3 and x.shape[2] > 3])
        return graph.forward

    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: original(self, backend=backend, **options))
    return found


def _byol() -> tuple[nn.Module, list[torch.Tensor]]:
    torch._dynamo.reset()
    torch.manual_seed(0)
    method = create_method(BYOLSettings(hidden=8, dim=4), Encoder(), 4, seed=0)
    return method, [torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2)]


def test_the_slow_copy_is_compiled_too_and_nothing_twice(compilations: list[list[torch.Size]]) -> None:
    method, views = _byol()
    assert compile_encoders(method, [views], "fp32") is None
    tried = len(compilations)
    assert tried >= 2, "the encoder and its slow copy"
    assert all(shapes == [torch.Size([6, 3, 8, 8])] for shapes in compilations)
    for _ in range(2):
        loss, _ = method(views)
        loss.backward()
    assert len(compilations) == tried, "a step was compiled anew"


def test_views_that_grow_are_compiled_at_every_size_before_the_training(
    compilations: list[list[torch.Size]], caplog: pytest.LogCaptureFixture
) -> None:
    method, _ = _byol()
    stages = [[torch.rand(6, 3, size, size)] * 2 for size in range(5, 15)]
    assert compile_encoders(method, stages, "fp32") is None
    tried = len(compilations)
    assert tried >= 20, "more than torch would do of itself"
    for views in stages:
        method(views)[0].backward()
    assert len(compilations) == tried
    assert "recompile_limit" not in caplog.text


def test_the_attempt_leaves_no_trace_and_the_step_is_the_same(compilations: list[list[torch.Size]]) -> None:
    gradients = []
    for choice in (False, True):
        method, views = _byol()
        before = {name: value.clone() for name, value in method.state_dict().items()}
        if choice:
            assert compile_encoders(method, [views], "fp32") is None
            torch.testing.assert_close(method.state_dict(), before, rtol=0, atol=0)
            assert all(p.grad is None for p in method.parameters())
        loss, _ = method(views)
        loss.backward()
        gradients.append([loss, *(p.grad for p in method.parameters() if p.grad is not None)])
    torch.testing.assert_close(*gradients)
    assert compilations

"""A training that is cut off, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from compressl.runs import RunFolder
from compressl.training import checkpoint


class Killed(BaseException):
    """Nothing in the loop may catch this: the process is gone."""


def kill_after(steps: int) -> Callable[[int], None]:
    """What the loop calls after each step."""

    def after_step(step: int) -> None:
        if step == steps:
            raise Killed

    return after_step


def end(run: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The last state and the metrics without what depends on the clock."""
    loaded = checkpoint.load_newest(run / "checkpoints")
    assert loaded is not None
    lines = [{k: v for k, v in line.items() if k != "time"} for line in RunFolder(run).read_metrics()]
    return loaded.state, lines


def assert_same(a: Any, b: Any, where: str = "state") -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for name in a:
            if name not in ("environment", "config"):
                assert_same(a[name], b[name], f"{where}.{name}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def assert_same_runs(a: Path, b: Path) -> None:
    """The same state, metrics and encoder, to the bit."""
    state, lines = end(a)
    other, other_lines = end(b)
    assert_same(state, other)
    assert lines == other_lines
    assert (a / "encoder.safetensors").read_bytes() == (b / "encoder.safetensors").read_bytes()

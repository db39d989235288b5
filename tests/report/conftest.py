"""Run folders that no training wrote."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressl import pictures
from compressl.measures.intervals import bootstrap_mean
from compressl.measures.packing import pack_bits
from compressl.runs import RunFolder

CONFIG = """epochs = {epochs}  # flag
batch_size = {batch}
seed = 0

[data]
path = "{data}"

[method]
name = "{method}"
beta = {beta}

[encoder]
name = "resnet18"
"""


def metrics(steps: int, method: str = "c-simclr", seed: int = 0, every: int = 10) -> list[dict[str, Any]]:
    """Noisy curves as a training would leave them."""
    random, lines = np.random.default_rng(seed), []
    for step in range(every, steps + 1, every):
        t = step / steps
        line: dict[str, Any] = {"step": step, "epoch": (step - 1) // 100}
        bound = 5.8 * (1 - math.exp(-6 * t)) + 0.08 * random.normal()
        line |= {"loss": 6.2 - bound, "mutual_information_bound": bound, "cross_entropy": 6.2 - bound}
        line |= {"alignment": 0.2 + 0.6 * (1 - math.exp(-5 * t)) + 0.01 * random.normal()}
        if method == "c-simclr":
            line["residual_information_excess"] = 8 * math.exp(-3 * t) + 1 + 0.1 * random.normal()
        line["lr"] = 0.06 * (1 + math.cos(math.pi * t)) / 2
        line["gradient_norm"] = math.exp(0.5 * random.normal()) / (1 + 4 * t)
        line["time"] = {"images_per_second": 1800 + 60 * random.normal(), "waiting": 0.02}
        if step % 50 == 0:
            line |= {"embedding_std": 0.9 - 0.3 * math.exp(-8 * t), "embedding_cosine": 0.1}
            line["embedding_effective_rank"] = 20 + 60 * t + random.normal()
        if step % (every * 10) == 0 or step == steps:
            line["knn"] = 0.3 + 0.5 * (1 - math.exp(-4 * t)) + 0.01 * random.normal()
        lines.append(line)
    return lines


def answers(share: float, images: int = 400, seed: int = 0) -> np.ndarray:
    """Which of the images are right, in a random order."""
    right = np.arange(images) < round(share * images)
    return np.random.default_rng(seed).permutation(right)


def evaluation(
    encoder: np.ndarray,
    *,
    knn: np.ndarray | None = None,
    random: np.ndarray | None = None,
    pixels: np.ndarray | None = None,
    fingerprint: str = "f",
    train_images: int = 1000,
    classes: tuple[str, ...] = ("cat", "dog"),
    name: str = "pets",
) -> dict[str, Any]:
    """evaluation.json for given right answers; by default the baselines are far below."""
    n = len(encoder)
    random = answers(0.3, n, 8) if random is None else random
    pixels = answers(0.35, n, 9) if pixels is None else pixels

    def measured(right: np.ndarray) -> dict[str, Any]:
        e = bootstrap_mean(right, 200)
        return {"value": e.value, "low": e.low, "high": e.high, "correct": pack_bits(right)}

    rows = {"encoder": (encoder if knn is None else knn, encoder)}
    rows |= {"random encoder": (random,) * 2, "raw pixels": (pixels,) * 2}
    return {
        "schema": 1,
        "data": {
            "name": name,
            "train_images": train_images,
            "test_images": n,
            "test_fingerprint": fingerprint,
            "classes": list(classes),
            "split": "every fifth image of each class",
            "chance": 0.1,
        },
        "protocol": {"knn": "k = 20", "linear": "logistic regression", "interval": "95 %, bootstrap", "seed": 0},
        "environment": {"torch": "2.10"},
        "results": {r: {"knn": measured(k), "linear": measured(li), "dimension": 512} for r, (k, li) in rows.items()},
    }


def sheet(columns: int, rows: int = 8, seed: int = 0) -> bytes:
    random = np.random.default_rng(seed)
    cells = [[random.integers(0, 255, (8, 8, 3), dtype=np.uint8) for _ in range(columns)] for _ in range(rows)]
    frames = [[None, *(pictures.RIGHT if random.random() < 0.7 else pictures.WRONG for _ in row[1:])] for row in cells]
    return pictures.sheet(cells, frames if columns > 3 else None)


MakeRun = Callable[..., RunFolder]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(
        name: str = "run",
        *,
        status: str | None = "finished",
        reason: str | None = None,
        lines: list[dict[str, Any]] | None = None,
        evaluated: dict[str, Any] | None = None,
        method: str = "c-simclr",
        beta: float = 1.0,
        batch: int = 256,
        data: str = "pets",
        images: bool = False,
        config: bool = True,
    ) -> RunFolder:
        run = RunFolder(tmp_path / "runs" / name)
        run.path.mkdir(parents=True)
        if status:
            run.set_status(status, **({"reason": reason} if reason else {}))
        lines = metrics(400, method) if lines is None else lines
        if lines:
            run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
        if config:
            run.config.write_text(CONFIG.format(epochs=4, batch=batch, data=data, method=method, beta=beta))
            run.environment.write_text(json.dumps({"torch": "2.10", "processor": "Abacus"}))
        if evaluated:
            run.evaluation.write_text(json.dumps(evaluated))
        if images:
            (run.path / "neighbors.png").write_bytes(sheet(9))
            (run.path / "views.png").write_bytes(sheet(3))
        return run

    return make

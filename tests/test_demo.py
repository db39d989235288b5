"""The demonstration tells the truth, whichever method won."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compressl import demo
from compressl.errors import CheckpointError
from compressl.evaluation.protocol import Evaluation
from compressl.measures.packing import pack_bits
from compressl.settings.demo import DemoSettings
from compressl.settings.evaluate import EvaluateSettings
from compressl.settings.loading import load_pretrain


def _evaluation(encoder: float, random: float = 0.3, pixels: float = 0.4, shift: int = 0) -> Evaluation:
    """Linear-probe outcomes on 500 images with these accuracies."""

    def right(accuracy: float) -> np.ndarray:
        return np.roll(np.arange(500) < 500 * accuracy, shift)

    correct = {"encoder": encoder, "random encoder": random, "raw pixels": pixels}
    empty = np.zeros((0, 8), dtype=np.int64)
    results = {n: {c: {"correct": pack_bits(right(a))} for c in ("linear", "knn")} for n, a in correct.items()}
    return Evaluation({"results": results, "data": {"test_images": 500}}, empty[:, 0], empty)


@pytest.mark.parametrize(
    ("simclr", "csimclr", "parts"),
    [
        (
            0.7,
            0.8,
            [
                "Between these two trainings, C-SimCLR is better than SimCLR by 10.0 points",
                "SimCLR beats random encoder and raw pixels",
            ],
        ),
        (0.8, 0.7, ["SimCLR is better than C-SimCLR by 10.0 points"]),
        (0.8, 0.802, ["C-SimCLR is ahead of SimCLR by 0.2 points", "that is no difference"]),
        (0.35, 0.8, ["SimCLR beats random encoder;", "C-SimCLR beats random encoder and raw pixels"]),
        (0.2, 0.2, ["SimCLR beats neither baseline; C-SimCLR beats neither baseline", "equally many"]),
    ],
)
def test_the_verdict_is_what_the_figures_say(simclr: float, csimclr: float, parts: list[str]) -> None:
    text = demo.verdict(_evaluation(simclr), _evaluation(csimclr))
    for part in parts:
        assert part in text


def test_only_a_demo_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match="no demo wrote"):
        demo.run(DemoSettings(out=tmp_path))
    assert (tmp_path / "thesis.tex").exists()


def test_one_epoch_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("compressl.data.digits.TRAIN_RENDERINGS", 1)
    monkeypatch.setattr("compressl.data.digits.TEST_RENDERINGS", 1)
    monkeypatch.setattr(demo, "load_pretrain", lambda words: load_pretrain([*words, "--encoder.width", "0.125"]))
    few = {"limit": 200, "images": 60, "views": 4, "resamples": 100}
    monkeypatch.setattr(demo, "EvaluateSettings", lambda **fields: EvaluateSettings(**fields | few))
    page = demo.run(DemoSettings(out=tmp_path / "demo", epochs=1))
    assert page.read_text().lstrip().lower().startswith("<!doctype html>")
    for method in demo.METHODS:
        assert (tmp_path / "demo" / method / "evaluation.json").exists()
    assert "Linear probe:" in capsys.readouterr().out
    demo._make_room(tmp_path / "demo")  # a demo may be repeated in its place

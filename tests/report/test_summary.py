"""Sentences that must be true of the figures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compressl.report.panels import GROUPS, ceiling, values_of
from compressl.report.reading import read_runs
from compressl.report.summary import Summary, against_baseline, compare, summarize
from compressl.runs import RunFolder

from .conftest import MakeRun, answers, evaluation

N = 400


def flipped(right: np.ndarray, lose: int, gain: int) -> np.ndarray:
    """The same answers but for some that are lost and some that are gained."""
    other = right.copy()
    other[np.flatnonzero(right)[:lose]] = False
    other[np.flatnonzero(~right)[:gain]] = True
    return other


def summary_of(*runs: RunFolder) -> Summary:
    return summarize(read_runs(runs))


BASE = answers(0.7, N)


@pytest.mark.parametrize(
    ("lose", "gain", "verdict", "headline"),
    [
        (
            0,
            40,
            "worse",
            "b is better than a: a linear probe gets 80.0\u202f% of the test images right against 70.0\u202f%",
        ),
        (
            40,
            0,
            "better",
            "a is better than b: a linear probe gets 70.0\u202f% of the test images right against 60.0\u202f%",
        ),
        (40, 42, "indistinguishable", "b and a cannot be told apart"),
        (0, 0, "indistinguishable", "a and b cannot be told apart"),
    ],
)
def test_headline_of_two(make_run: MakeRun, lose: int, gain: int, verdict: str, headline: str) -> None:
    a, b = make_run("a", evaluated=evaluation(BASE)), make_run("b", evaluated=evaluation(flipped(BASE, lose, gain)))
    first, second = read_runs([a, b])
    assert compare(first, second, "linear").verdict == verdict
    assert summary_of(a, b).headline.startswith(headline)


def test_the_interval_is_paired(make_run: MakeRun) -> None:
    """12 images gained and none lost: sure when paired, far within the noise when not."""
    a, b = read_runs(
        [make_run("a", evaluated=evaluation(BASE)), make_run("b", evaluated=evaluation(flipped(BASE, 0, 12)))]
    )
    comparison = compare(b, a, "linear")
    assert comparison.verdict == "better"
    assert comparison.difference is not None
    assert comparison.difference.value == pytest.approx(12 / N)
    assert comparison.difference.low > 0.01  # unpaired: 0.03 - 1.96 * 0.032 < 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fingerprint": "g"}, "tested on other images"),
        ({"train_images": 100}, "fitted on 1000 and 100 training images"),
        ({"fingerprint": ""}, "tested on other images"),
    ],
)
def test_other_grounds_are_not_compared(make_run: MakeRun, changes: dict[str, object], reason: str) -> None:
    a = make_run("a", evaluated=evaluation(BASE))
    b = make_run("b", evaluated=evaluation(answers(0.99), **changes))  # type: ignore[arg-type]
    found = summary_of(a, b)
    assert found.headline.startswith("a and b cannot be compared: ")
    assert reason in found.headline
    assert "better" not in " ".join([found.headline, *found.findings])


def test_unknown_images_are_not_compared(make_run: MakeRun) -> None:
    """Two records without a fingerprint are equal, and say nothing."""
    runs = [make_run(n, evaluated=evaluation(answers(s), fingerprint="")) for n, s in (("a", 0.5), ("b", 0.9))]
    assert "cannot be compared" in summary_of(*runs).headline


def test_another_rule_is_not_compared(make_run: MakeRun) -> None:
    other = evaluation(answers(0.9))
    other["protocol"]["linear"] = "ridge"
    found = summary_of(make_run("a", evaluated=evaluation(BASE)), make_run("b", evaluated=other))
    assert "fitted by other rules" in found.headline


def test_answers_that_contradict_the_figure_are_not_used(make_run: MakeRun) -> None:
    wrong = evaluation(answers(0.9))
    wrong["results"]["encoder"]["linear"]["value"] = 0.5
    found = summary_of(make_run("a", evaluated=evaluation(BASE)), make_run("b", evaluated=wrong))
    assert "cannot be compared" in found.headline
    assert "not on record" in found.headline


def test_measures_that_disagree_are_both_told(make_run: MakeRun) -> None:
    a = make_run("a", evaluated=evaluation(answers(0.8), knn=answers(0.5)))
    b = make_run("b", evaluated=evaluation(answers(0.7), knn=answers(0.65)))
    assert summary_of(a, b).headline.endswith("By nearest neighbours, however, b is better.")


def test_three_runs(make_run: MakeRun) -> None:
    a, b, c = (
        make_run(n, evaluated=evaluation(right))
        for n, right in (("a", BASE), ("b", flipped(BASE, 60, 0)), ("c", flipped(BASE, 20, 21)))
    )
    assert "none is clearly best: c leads with" in summary_of(a, b, c).headline
    assert "cannot be told from a" in summary_of(a, b, c).headline
    d = make_run("d", evaluated=evaluation(answers(0.99, N)))
    assert summary_of(a, b, d).headline.startswith("Of 3 runs d is best")


@pytest.mark.parametrize(
    ("baseline", "verdict", "words"),
    [
        (flipped(BASE, 80, 0), "better", "20.0 points more than a random encoder"),
        (flipped(BASE, 0, 80), "worse", "20.0 points fewer than a random encoder"),
        (flipped(BASE, 10, 10), "indistinguishable", "level with a random encoder"),
    ],
)
def test_beside_a_baseline(make_run: MakeRun, baseline: np.ndarray, verdict: str, words: str) -> None:
    run = make_run(evaluated=evaluation(BASE, random=baseline))
    found = against_baseline(read_runs([run])[0], "random encoder", "linear")
    assert found is not None
    assert found.verdict == verdict
    assert words in summary_of(run).headline
    assert "points more than raw pixels" in summary_of(run).headline


def test_a_winner_that_pixels_beat_says_so(make_run: MakeRun) -> None:
    pixels = answers(0.95, N, 9)
    a, b = (make_run(n, evaluated=evaluation(answers(s, N), pixels=pixels)) for n, s in (("a", 0.8), ("b", 0.5)))
    assert summary_of(a, b).headline.endswith("a does not beat raw pixels.")


def test_runs_without_figures(make_run: MakeRun) -> None:
    a, b = make_run("a"), make_run("b", status="failed", reason="out of memory")
    found = summary_of(a, b)
    assert found.headline == "None of the runs has been evaluated yet."
    assert any("out of memory" in finding for finding in found.findings)
    assert summary_of(a).headline.endswith("epoch 4 of 4. It has not been evaluated.")
    assert summary_of(a).findings == []


def test_nats_become_bits(make_run: MakeRun) -> None:
    lines = [
        {
            "step": 1,
            "epoch": 0,
            "mutual_information_bound": math.log(16),
            "residual_information_excess": math.log(2) / 2,
        }
    ]
    run = read_runs([make_run(lines=lines, batch=256)])[0]
    bound, residual = GROUPS["Information"]
    assert values_of(bound, run) == [(1, pytest.approx(4.0))]
    assert values_of(residual, run) == [(1, pytest.approx(0.5))]
    assert ceiling(run) == pytest.approx(math.log2(511))


def test_names_tell_runs_apart(make_run: MakeRun) -> None:
    runs = [make_run("x/run"), make_run("y/run"), make_run("a-name-too-long-for-a-curve")]
    assert [run.name for run in read_runs(runs)] == ["x/run", "y/run", "a-name-too-long-for-a-curve"]
    assert [run.label for run in read_runs(runs)] == ["A", "B", "C"]
    assert len({run.name for run in read_runs([runs[0], runs[0]])}) == 2

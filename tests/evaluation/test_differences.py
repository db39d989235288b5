"""Paired differences: only of what is comparable, with the right direction."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

from compressl.evaluation.differences import Difference, attack_name, differences
from compressl.measures.channels import concentration_for
from compressl.measures.intervals import Estimate
from compressl.measures.packing import pack_bits, pack_floats

Record = dict[str, Any]
N, M = 60, 40
RANKS = np.random.default_rng(0).random(N)


def answers(share: float) -> np.ndarray:
    """The easiest images are right."""
    return np.less(RANKS, share)


def record(share: float = 0.5, shift: float = 0.0) -> Record:
    """A record whose encoder gets the easiest ``share`` right; its real figures are moved by ``shift``."""
    right = answers(share)
    few = right[:M]
    lost = pack_floats(0.5 * few)
    noise = np.random.default_rng(1).normal(size=M)
    reals = pack_floats(noise + shift)
    linear = {"correct": pack_bits(right)}
    draws = {"draws": [share + 0.01 * i for i in range(3)]}
    return {
        "schema": 2,
        "encoder": {"size": 32},
        "data": {"test_images": N, "train_images": 90, "test_fingerprint": "f", "train_fingerprint": "t"},
        "protocol": {"linear": "l", "knn": "k", "seed": 0},
        "results": {"encoder": {"linear": linear, "knn": linear, "ridge": linear, "few_labels": {"5": draws}}},
        "measures": {
            "information": {
                "channel": "c", "kappa": 30.6, "orthogonal_bits": 10.0, "views": 4, "images": M,
                "representations": {
                    "encoder": {
                        "kept": {"saturated": False},
                        "superfluous": {"saturated": False},
                        "per_image": {"kept_lower": reals, "superfluous_upper": reals},
                    }
                },
            },
            "robustness": {
                "conditions": {"images": M}, "protocol": {"corruptions": "15"},
                "results": {"encoder": {"correct": {"clean": pack_bits(few), "mean_corrupted": lost}}},
                "attacks": {
                    "images": M, "steps": 10,
                    "linf": [{"epsilon": e, "correct": pack_bits(few)} for e in (0.0, 1 / 255)],
                },
                "shift": {
                    "s": {
                        "images": M, "data": "d", "rows": "r", "classes": ["a"], "clean_images": 9,
                        "results": {"encoder": {"accuracy": {"correct": pack_bits(few)}}},
                    }
                },
            },
            "geometry": {
                "protocol": "p",
                "results": {"encoder": {"invariance": {"images": M, "views": 4, "per_image": {"cosine": reals}}}},
            },
            "lipschitz": {
                "protocol": "p",
                "results": {"encoder": {"pairs": {"views": {"per_image": reals}}, "local": {"per_image": reals}}},
            },
            "uncertainty": {"results": {"encoder": {"per_image": {"nll_bits": reals, "brier": reals}}}},
            "transfer": {
                "birds": {
                    "data": {"test_images": M, "train_images": 9, "test_fingerprint": "x", "train_fingerprint": "y"},
                    "results": {"encoder": {"linear": {"correct": pack_bits(few)}}},
                }
            },
            "fine-tuning": {"protocol": "sgd", "encoder": {"10 %": {"correct": pack_bits(right), "images": 9}}},
        },
    }  # fmt: skip


def by_name(first: Record, second: Record, **options: bool) -> dict[str, Difference]:
    found = differences(first, second, resamples=100, **options)
    names = [difference.name for difference in found]
    assert len(set(names)) == len(names)
    return {difference.name: difference for difference in found}


EVERYTHING = {
    "linear probe", "nearest neighbours", "ridge classifier", "ridge classifier, 5 per class",
    "fine-tuned, 10 % of the labels", "kept information, lower bound", "superfluous information, upper bound",
    "accuracy under corruption", "lost to corruption", "under attack, L∞ 1/255", "elsewhere, s", "other data, birds",
    "cosine of two views", "slope between two views", "largest local slope", "log loss of the linear probe",
    "Brier score of the linear probe",
}  # fmt: skip


def test_everything_that_two_records_share() -> None:
    found = by_name(record(0.7, -0.5), record(0.3))
    assert set(found) == EVERYTHING
    linear = found["linear probe"]
    expected = 100 * (answers(0.7).mean() - answers(0.3).mean())
    assert linear.difference.value == pytest.approx(expected)
    assert linear.first - linear.second == pytest.approx(expected)
    assert (linear.unit, linear.images, linear.verdict) == ("points", N, "better")
    assert found["lost to corruption"].difference.value == pytest.approx(
        found["under attack, L∞ 1/255"].difference.value / 2
    )
    assert found["lost to corruption"].verdict == "worse"
    assert found["superfluous information, upper bound"].verdict == "better"
    assert found["superfluous information, upper bound"].difference.value == pytest.approx(-0.5, abs=1e-6)
    assert found["kept information, lower bound"].verdict == "less"
    few = found["ridge classifier, 5 per class"]
    assert (few.images, few.verdict) == (3, "better")
    assert few.difference.value == pytest.approx(40)


def test_the_same_record_shows_no_difference() -> None:
    found = by_name(record(), record())
    assert set(found) == EVERYTHING
    assert {difference.verdict for difference in found.values()} == {"no difference"}


def test_exchanged_records_give_the_opposite() -> None:
    one, other = by_name(record(0.7, 0.2), record(0.3)), by_name(record(0.3), record(0.7, 0.2))
    for name in EVERYTHING:
        assert one[name].difference.value == pytest.approx(-other[name].difference.value)


INFORMATION = {"kept information, lower bound", "superfluous information, upper bound"}
CORRUPTION = {"accuracy under corruption", "lost to corruption"}
PROBE = {"log loss of the linear probe", "Brier score of the linear probe", "linear probe"}


@pytest.mark.parametrize(
    ("path", "lost"),
    [
        (("data", "test_fingerprint"), EVERYTHING),
        (("protocol", "knn"), {"nearest neighbours"}),
        (("protocol", "linear"), PROBE | CORRUPTION | {"under attack, L∞ 1/255", "elsewhere, s", "other data, birds"}),
        (("data", "train_fingerprint"), {"ridge classifier, 5 per class"}),
        (("measures", "information", "orthogonal_bits"), INFORMATION),
        (("measures", "information", "channel"), INFORMATION),
        (("measures", "robustness", "conditions"), CORRUPTION | {"under attack, L∞ 1/255"}),
        (("measures", "robustness", "attacks", "steps"), {"under attack, L∞ 1/255"}),
        (("measures", "robustness", "shift", "s", "data"), {"elsewhere, s"}),
        (("measures", "robustness", "shift", "s", "rows"), {"elsewhere, s"}),
        (("measures", "robustness", "shift", "s", "classes"), {"elsewhere, s"}),
        (("measures", "geometry", "protocol"), {"cosine of two views"}),
        (("encoder", "size"), {"slope between two views", "largest local slope"}),
        (("measures", "transfer", "birds", "data", "test_fingerprint"), {"other data, birds"}),
        (("measures", "fine-tuning", "protocol"), {"fine-tuned, 10 % of the labels"}),
    ],
)
@pytest.mark.parametrize("how", ["other", "missing"])
def test_other_terms_are_not_compared(path: tuple[str, ...], lost: set[str], how: str) -> None:
    first, second = record(0.7), record(0.3)
    table = second
    for name in path[:-1]:
        table = table[name]
    if how == "other":
        table[path[-1]] = {"images": M, "seed": 9} if path[-1] == "conditions" else "other"
    else:
        del table[path[-1]]
    assert EVERYTHING - set(by_name(first, second)) == lost


@pytest.mark.parametrize("older", [False, True])
def test_channels_that_are_as_sharp_are_compared_in_any_dimension(older: bool) -> None:
    """A record of before the sharpness was written down gives it by its dimension and kappa."""
    first, second = record(0.7), record(0.3)
    for found, dim in ((first, 128), (second, 512)):
        measure = found["measures"]["information"]
        measure["kappa"] = concentration_for(dim, 10.0)
        measure["representations"]["encoder"]["dimension"] = dim
        if older:
            del measure["orthogonal_bits"]
    assert set(by_name(first, second)) == EVERYTHING
    second["measures"]["information"]["kappa"] *= 1.01
    assert EVERYTHING - set(by_name(first, second)) == (INFORMATION if older else set())


def test_figures_on_other_views_are_not_compared() -> None:
    lost = {*INFORMATION, "cosine of two views", "slope between two views"}
    assert EVERYTHING - set(by_name(record(0.7), record(0.3), same_views=False)) == lost


def test_bounds_at_their_ceiling_are_not_compared() -> None:
    second = record(0.3)
    second["measures"]["information"]["representations"]["encoder"]["kept"]["saturated"] = True
    assert EVERYTHING - set(by_name(record(0.7), second)) == {"kept information, lower bound"}


@pytest.mark.parametrize("draws", [[0.5], [0.5, 0.5], "x", None, [math.nan] * 3])
def test_draws_that_do_not_pair(draws: object) -> None:
    second = record(0.3)
    second["results"]["encoder"]["few_labels"]["5"]["draws"] = draws
    assert "ridge classifier, 5 per class" not in by_name(record(0.7), second)
    first = copy.deepcopy(second)
    assert "ridge classifier, 5 per class" not in by_name(first, second) or draws == [0.5, 0.5]


@pytest.mark.parametrize("junk", [None, 3, "x", [], {}, [1], {"encoder": 4}])
@pytest.mark.parametrize("part", ["results", "measures", "information", "robustness", "fine-tuning", "transfer"])
def test_damage_costs_only_itself(part: str, junk: object) -> None:
    damaged = record()
    (damaged if part in ("results", "measures") else damaged["measures"])[part] = junk
    for pair in ((damaged, record()), (record(), damaged), (damaged, damaged)):
        found = set(by_name(*pair))
        assert found < EVERYTHING
        assert ("largest local slope" in found) == (part != "measures")


@pytest.mark.parametrize("junk", [{}, {"data": None}, {"data": {"test_fingerprint": ""}}])
def test_records_of_unknown_images_have_nothing_in_common(junk: Record) -> None:
    assert differences(junk, junk) == []


@pytest.mark.parametrize(
    ("better", "low", "high", "verdict"),
    [(1, 0.1, 0.3, "better"), (-1, 0.1, 0.3, "worse"), (0, -0.3, -0.1, "less"), (1, 0.0, 0.3, "no difference")],
)
def test_verdicts(better: int, low: float, high: float, verdict: str) -> None:
    found = Difference("a", "bits", better, 1.0, 0.8, Estimate((low + high) / 2, low, high), 10)
    assert found.verdict == found.as_dict()["verdict"] == verdict


def test_attacks_are_named_by_levels() -> None:
    assert [attack_name("linf", e) for e in (1 / 255, 0.01)] == ["L∞ 1/255", "L∞ 0.01"]

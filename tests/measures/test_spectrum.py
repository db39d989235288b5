"""Ranks in their several definitions, and what a dimension is worth."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressl.errors import DataError
from compressl.measures.spectrum import (
    correlation_rank,
    covariance_spectrum,
    entropy_rank,
    participation_ratio,
    rankme,
    share_of_tasks,
    worst_expected_risk,
)

N, D = torch.arange(10, dtype=torch.float64)[:, None], torch.arange(5, dtype=torch.float64)[None]
LOW, FULL = torch.sin(N + 2 * D), torch.cos(N * (D + 1))


@pytest.mark.parametrize(
    ("features", "rank", "garrido", "ratio", "entropy"),
    [
        (LOW, 2, 1.994296617465, 1.936131993798, 1.967102346452),
        (FULL, 5, 4.946551521117, 4.600706666787, 4.794172730118),
    ],
)
def test_reference_ranks(features: torch.Tensor, rank: int, garrido: float, ratio: float, entropy: float) -> None:
    spectrum = covariance_spectrum(features)
    assert correlation_rank(features) == rank
    assert rankme(features) == pytest.approx(garrido, abs=2e-12)
    assert participation_ratio(spectrum) == pytest.approx(ratio, abs=2e-12)
    assert entropy_rank(spectrum) == pytest.approx(entropy, abs=2e-11)


def test_rankme_without_its_constant_is_another_number() -> None:
    assert rankme(LOW, epsilon=0.0) == pytest.approx(1.994287095457, abs=1e-11)


def test_an_identity_has_full_rank_and_one_less_once_centred() -> None:
    assert rankme(torch.eye(6), epsilon=0.0) == pytest.approx(6)
    assert correlation_rank(torch.eye(6)) == 5
    assert entropy_rank(covariance_spectrum(torch.eye(6))) == pytest.approx(5)


def test_ranks_do_not_depend_on_scale_and_constant_columns() -> None:
    wide = torch.cat([FULL, torch.full((10, 1), 3.0, dtype=torch.float64)], 1)
    assert correlation_rank(wide) == 5
    torch.testing.assert_close(covariance_spectrum(wide)[:5], covariance_spectrum(FULL))
    assert participation_ratio(covariance_spectrum(7 * FULL)) == pytest.approx(
        participation_ratio(covariance_spectrum(FULL))
    )


def test_the_spectrum_falls_and_sums_to_the_variance() -> None:
    spectrum = covariance_spectrum(FULL)
    assert all(a >= b for a, b in pairwise(spectrum.tolist()))
    assert float(spectrum.sum()) == pytest.approx(float(FULL.var(0).sum()))


@pytest.mark.parametrize(
    ("classes", "dim", "share"),
    [
        (6, 1, 0.1875), (6, 2, 0.5), (6, 3, 0.8125), (6, 4, 0.96875), (6, 5, 1),
        (10, 2, 0.089844), (10, 4, 0.5), (10, 5, 0.746094), (10, 8, 0.998047), (10, 9, 1),
    ],
)  # fmt: skip
def test_reference_shares_of_tasks(classes: int, dim: int, share: float) -> None:
    assert share_of_tasks(classes, dim) == pytest.approx(share, abs=5e-7)


@given(st.integers(1, 3000), st.integers(0, 3000))
def test_all_tasks_are_solved_from_one_dimension_less_than_classes(classes: int, dim: int) -> None:
    share = share_of_tasks(classes, dim)
    assert 0 <= share <= 1
    if dim >= classes - 1:
        assert share == 1
    if classes <= 50:
        assert (share == 1) == (dim >= classes - 1)


@pytest.mark.parametrize(
    ("classes", "samples", "risk"),
    [
        (2, 1, 0.5), (2, 10, 0.035049390), (10, 1, 0.9), (10, 10, 0.348678440), (10, 100, 0.032944563),
        (1000, 100, 0.904792147), (1000, 1000, 0.367695425), (3, 5, 0.137419587), (5, 20, 0.071788473),
    ],
)  # fmt: skip
def test_reference_worst_risks(classes: int, samples: int, risk: float) -> None:
    assert worst_expected_risk(classes, samples) == pytest.approx(risk, abs=6e-10)


@given(st.integers(2, 60), st.integers(0, 80))
def test_more_classes_are_never_easier_and_more_samples_never_harder(classes: int, samples: int) -> None:
    risk = worst_expected_risk(classes, samples)
    assert worst_expected_risk(classes + 1, samples) >= risk - 1e-12
    assert worst_expected_risk(classes, samples + 1) <= risk + 1e-12


@pytest.mark.parametrize("samples", [3, 5, 20])
def test_no_distribution_of_three_classes_is_worse(samples: int) -> None:
    p, q = torch.meshgrid(*[torch.linspace(0, 1, 401, dtype=torch.float64)] * 2, indexing="ij")
    masses = torch.stack([p, q, (1 - p - q).clamp_min(0)])[:, p + q <= 1]
    worst = float((masses * (1 - masses) ** samples).sum(0).max())
    assert worst <= worst_expected_risk(3, samples) + 1e-9
    assert worst == pytest.approx(worst_expected_risk(3, samples), rel=1e-3)


def test_what_cannot_be_measured_is_said() -> None:
    for measure in (covariance_spectrum, correlation_rank, rankme):
        with pytest.raises(DataError, match="collapsed"):
            measure(torch.full((8, 3), 0.1))
        with pytest.raises(DataError, match="not finite"):
            measure(torch.tensor([[0.0, 1.0], [float("nan"), 2.0]]))
        with pytest.raises(DataError, match="two images"):
            measure(torch.zeros(1, 3))
    with pytest.raises(DataError, match="at least one class"):
        share_of_tasks(0, 3)

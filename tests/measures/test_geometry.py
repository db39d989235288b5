"""Invariance and geometry of views against written-out values, naive loops, and what must not change them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from compressl.errors import DataError
from compressl.measures import geometry
from compressl.measures.geometry import (
    alignment,
    centred_cosines,
    cosines,
    kernel_entropy,
    log_of_mean,
    nc1,
    permuted,
    ratio,
    retrieval,
    uniformity,
    variances,
)
from compressl.objectives.von_mises_fisher import VonMisesFisher

N, D = torch.arange(10, dtype=torch.float64)[:, None], torch.arange(5, dtype=torch.float64)[None]
PAIR = torch.stack([torch.cos(N * (D + 1)), torch.cos((N + 0.1) * (D + 1))], 1)  # [10, 2, 5]
TOLERANCE = 2e-12


def random_views(images: int, views: int, width: int, seed: int = 0, noise: float = 0.5) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(images, 1, width, generator=random, dtype=torch.float64)
    return centres + noise * torch.randn(images, views, width, generator=random, dtype=torch.float64)


def test_reference_values() -> None:
    assert float(alignment(PAIR).mean()) == pytest.approx(0.106168860488, abs=TOLERANCE)
    assert float(uniformity(PAIR[:, 0]).mean().log()) == pytest.approx(-3.145530652567, abs=TOLERANCE)
    within, between = (float(x.mean()) for x in variances(PAIR))
    assert within == pytest.approx(0.063347993931, abs=TOLERANCE)
    assert between == pytest.approx(2.670589211033, abs=TOLERANCE)
    assert within / between == pytest.approx(0.023720605801, abs=TOLERANCE)
    assert nc1(PAIR) == pytest.approx(0.318316002404, abs=TOLERANCE)
    positives, negatives = (float(x.mean()) for x in centred_cosines(PAIR))
    assert positives == pytest.approx(0.948187407825, abs=TOLERANCE)
    assert negatives == pytest.approx(-0.103311792248, abs=TOLERANCE)


def test_the_released_estimator_of_alignment_is_half_of_it_for_two_views() -> None:
    u = F.normalize(PAIR, dim=-1)
    released = float(2 * (u - u.mean(1, keepdim=True)).square().sum(-1).mean())
    assert released == pytest.approx(0.053084430244, abs=TOLERANCE)
    assert float(alignment(PAIR).mean()) == pytest.approx(released * 2 / (2 - 1))


@pytest.mark.parametrize("views", [2, 3, 8])
def test_alignment_is_the_mean_over_distinct_pairs(views: int) -> None:
    z = random_views(6, views, 4)
    u = F.normalize(z, dim=-1)
    pairs = [(u[:, a] - u[:, b]).square().sum(-1) for a in range(views) for b in range(views) if a != b]
    torch.testing.assert_close(alignment(z), torch.stack(pairs).mean(0))
    torch.testing.assert_close(cosines(z), 1 - alignment(z) / 2)


def test_centred_cosines_are_those_of_all_pairs_of_views() -> None:
    z = random_views(7, 3, 4)
    u = F.normalize(z - z.mean(0), dim=-1)
    table = torch.einsum("iad,jbd->ijab", u, u)
    apart = ~torch.eye(3, dtype=torch.bool)
    values = table[..., apart].mean(-1)  # [N, N]
    positives, negatives = centred_cosines(z)
    torch.testing.assert_close(positives, values.diagonal())
    torch.testing.assert_close(negatives, (values.sum(1) - values.diagonal()) / 6)


def test_codes_of_a_simplex_have_the_ideal_geometry() -> None:
    z = torch.eye(6, dtype=torch.float64)[:, None].expand(6, 4, 6)
    positives, negatives = centred_cosines(z)
    torch.testing.assert_close(positives, torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(negatives, torch.full((6,), -1 / 5, dtype=torch.float64))
    assert float(alignment(z).abs().max()) < 1e-15
    assert nc1(z) == 0
    assert retrieval(z).tolist() == [1.0] * 6


def test_uniformity_and_entropy_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    z, views = random_views(23, 2, 5)[:, 0], random_views(23, 3, 5, noise=2.0)
    whole = uniformity(z), kernel_entropy(z, 5.0), kernel_entropy(z, 5.0, leave_one_out=False), retrieval(views)
    monkeypatch.setattr(geometry, "CHUNK", 7)
    parts = uniformity(z), kernel_entropy(z, 5.0), kernel_entropy(z, 5.0, leave_one_out=False), retrieval(views)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b)
    naive = [-2 * float((u - v).square().sum()) for u in F.normalize(z, dim=1) for v in F.normalize(z, dim=1)]
    off = np.exp(naive).reshape(23, 23)[~np.eye(23, dtype=bool)]
    assert float(whole[0].mean()) == pytest.approx(off.mean())


def test_retrieval_counts_ties_by_their_share() -> None:
    same = torch.ones(5, 2, 3)
    assert retrieval(same).tolist() == pytest.approx([1 / 5] * 5)
    swapped = torch.eye(4)[:, None].repeat(1, 2, 1)
    swapped[:2, 1] = swapped[:2, 1].flip(0)
    assert retrieval(swapped).tolist() == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("kappa", "leave_one_out", "entropy"),
    [
        (1, False, 2.8791788460524477),
        (10, False, 1.004342766126817),
        (1, True, 3.1462000105598897),
        (10, True, 5.077895019654433),
    ],
)
def test_reference_kernel_entropies(kappa: float, leave_one_out: bool, entropy: float) -> None:
    i, j = torch.arange(6, dtype=torch.float64)[:, None], torch.arange(4, dtype=torch.float64)[None]
    b = torch.sin(i + 2 * j) + 0.3 * torch.cos(3 * i - j)
    assert float(kernel_entropy(b, kappa, leave_one_out).mean()) == pytest.approx(entropy, abs=1e-10)


def test_the_kernel_entropy_of_uniform_directions_is_close_to_the_log_of_the_area() -> None:
    z = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    assert float(kernel_entropy(z, 10.0).mean()) == pytest.approx(math.log(4 * math.pi), abs=0.02)
    assert VonMisesFisher(3, 0.0).entropy == pytest.approx(math.log(4 * math.pi))


@given(st.integers(2, 40), st.integers(2, 5), st.integers(0, 99))
def test_no_image_keeps_its_own_views_in_the_null(images: int, views: int, seed: int) -> None:
    z = torch.arange(images, dtype=torch.float32)[:, None, None].expand(images, views, 1)
    mixed = permuted(z, torch.Generator().manual_seed(seed))[:, :, 0]
    assert bool((mixed[:, 1:] != mixed[:, :1]).all())
    assert bool((mixed.sort(0).values == z[:, :, 0]).all())


def test_unrelated_views_score_the_null() -> None:
    """Permuted views of independent directions: cosine 0, alignment 2, ratio A - 1, retrieval 1 / N."""
    z = torch.randn(3000, 1, 32, generator=torch.Generator().manual_seed(0)).expand(3000, 4, 32)
    mixed = permuted(z, torch.Generator().manual_seed(1))
    assert float(alignment(mixed).mean()) == pytest.approx(2, abs=0.02)
    within, between = (float(x.mean()) for x in variances(mixed))
    assert within / between == pytest.approx(3, rel=0.02)
    assert float(retrieval(mixed).mean()) < 0.01


@given(st.floats(0.01, 100), st.integers(0, 50))
def test_scale_does_not_change_what_is_relative(scale: float, seed: int) -> None:
    z = random_views(8, 3, 5, seed)
    assert nc1(10 * z) == pytest.approx(nc1(z))  # well above the absolute cut
    for measure in (alignment, retrieval):
        torch.testing.assert_close(measure(scale * z), measure(z))
    torch.testing.assert_close(centred_cosines(scale * z), centred_cosines(z))
    within, between = variances(z)
    torch.testing.assert_close(variances(scale * z), (within * scale**2, between * scale**2))


def test_values_of_images_carry_the_error_of_a_ratio_and_of_a_log_of_pairs() -> None:
    """Against the spread of the figure itself over independent draws of images."""
    random = torch.Generator().manual_seed(0)
    a, b = (torch.rand(500, 200, generator=random, dtype=torch.float64) + 0.1 for _ in range(2))
    spread = (a.mean(1) / b.mean(1)).std()
    values = ratio(a[0], b[0])
    assert float(values.mean()) == pytest.approx(float(a[0].mean() / b[0].mean()))
    assert float(values.std() / 200**0.5) == pytest.approx(float(spread), rel=0.15)

    draws = [uniformity(torch.randn(60, 3, generator=random, dtype=torch.float64)) for _ in range(400)]
    spread = torch.stack([v.mean().log() for v in draws]).std()
    error = torch.stack([log_of_mean(v).std() / 60**0.5 for v in draws]).mean()
    assert float(log_of_mean(draws[0]).mean()) == pytest.approx(float(draws[0].mean().log()))
    assert float(error) > float(spread) * 0.9  # uniform directions: nothing of first order is left, so it is wide
    with pytest.raises(DataError, match="do not differ"):
        ratio(torch.zeros(3), torch.zeros(3))


def test_an_image_does_not_depend_on_the_others_where_it_should_not() -> None:
    z = random_views(9, 3, 4)
    torch.testing.assert_close(alignment(z)[:4], alignment(z[:4]))


def test_what_cannot_be_measured_is_said() -> None:
    for measure in (alignment, variances, nc1, centred_cosines, retrieval):
        with pytest.raises(DataError, match="two views"):
            measure(torch.randn(4, 1, 3))
        with pytest.raises(DataError, match="not finite"):
            measure(torch.full((4, 2, 3), math.inf))
    with pytest.raises(DataError, match="collapsed"):
        nc1(torch.ones(4, 2, 3))
    for of_features in (uniformity, lambda z: kernel_entropy(z, 1.0)):
        with pytest.raises(DataError, match="there is one"):
            of_features(torch.randn(1, 3))

"""Probes of instances and groupings on codes whose answer is known; the parts of a risk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressl.errors import DataError
from compressl.measures.linear import fit
from compressl.measures.spectrum import share_of_tasks
from compressl.measures.tasks import difference_of_means, grouping_accuracy, groupings, instance_probes, risks


def clouds(images: int, views: int, width: int, noise: float, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(images, 1, width, generator=random)
    return centres + noise * torch.randn(images, views, width, generator=random)


def test_images_that_lie_apart_are_told_apart_on_views_not_seen() -> None:
    for probe in instance_probes(clouds(40, 6, 32, noise=0.1)).values():
        assert float(probe.right.mean()) == 1
        assert float(probe.loss.mean()) < 0.01


def test_unrelated_views_are_not_told_apart_and_cost_the_log_of_images() -> None:
    for probe in instance_probes(torch.randn(64, 6, 16, generator=torch.Generator().manual_seed(0))).values():
        assert float(probe.right.mean()) < 0.1
        assert float(probe.loss.mean()) == pytest.approx(np.log(64), rel=0.05)


def test_an_mlp_reads_what_a_line_cannot() -> None:
    """Image k is a code whose sign is random: its views have no mean, and no hyperplane tells images apart."""
    z = clouds(40, 40, 16, noise=0.1)
    signs = torch.randint(2, (40, 40, 1), generator=torch.Generator().manual_seed(1)) * 2 - 1
    probes = instance_probes(signs * z)
    assert float(probes["mlp"].right.mean()) > 0.9
    assert float(probes["linear"].right.mean()) < 0.6
    assert float(probes["mlp"].loss.mean()) < float(probes["linear"].loss.mean()) / 2


def test_a_probe_is_the_same_twice() -> None:
    z = clouds(20, 4, 8, noise=1.0)
    first, again, other = (instance_probes(z, hidden=8, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first["mlp"].loss, again["mlp"].loss)
    assert torch.equal(first["linear"].loss, other["linear"].loss)


def test_the_linear_probe_is_bayes_rule_where_its_model_holds() -> None:
    """One dimension, many images: the posterior of the two-covariance model, written out."""
    z = clouds(1000, 6, 1, noise=0.5)
    known, new = z[:, :3, 0], z[:, 4:, 0]
    shrink = 1 / (1 + 0.25 / 3)  # of the mean of three views of variance 0.25 about a centre of variance 1
    mean, variance = shrink * known.mean(1), 0.25 + 0.25 / 3 * shrink
    log_p = (-(new[:, :, None] - mean).square() / (2 * variance)).log_softmax(2)
    expected = -float(log_p[torch.arange(1000), :, torch.arange(1000)].mean())
    assert float(instance_probes(z, hidden=1)["linear"].loss.mean()) == pytest.approx(expected, abs=0.01)


@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 9))
def test_groupings_leave_no_group_empty(classes: int, most: int, seed: int) -> None:
    table = groupings(classes, 4, most, seed)
    for task in table:
        used = task.unique().tolist()
        assert used == list(range(len(used)))
        assert 2 <= len(used) <= min(most, classes)
    assert torch.equal(table, groupings(classes, 4, most, seed))


def test_affinely_independent_codes_solve_every_task_and_a_line_does_not() -> None:
    classes = torch.arange(18) % 6
    tables = groupings(6, 32, 2)
    assert float(grouping_accuracy(torch.eye(6)[classes], classes, tables).min()) == 1
    on_a_line = grouping_accuracy(classes[:, None].float(), classes, tables)
    assert float(on_a_line.min()) < 1
    assert share_of_tasks(6, 1) < 1


def test_a_single_task_is_least_squares_on_its_labels() -> None:
    x, y = clouds(60, 1, 5, noise=1.0)[:, 0], torch.arange(60) % 3
    standard = (x - x.mean(0)) / x.std(0)
    design = torch.cat([standard, torch.ones(60, 1)], 1).double()
    weight = torch.linalg.lstsq(design, torch.nn.functional.one_hot(y).double()).solution
    expected = float(((design @ weight).argmax(1) == y).double().mean())
    assert float(grouping_accuracy(x, y, torch.arange(3)[None])) == pytest.approx(expected)


def test_a_grouping_is_tested_on_other_rows_if_they_are_given() -> None:
    x, y = torch.eye(4).repeat(5, 1), torch.arange(20) % 4
    wrong = grouping_accuracy(x, y, groupings(4, 8, 4), torch.eye(4), torch.tensor([0, 1, 2, 3]))
    assert wrong.tolist() == [1.0] * 8
    swapped = grouping_accuracy(x, y, torch.arange(4)[None], torch.eye(4), torch.tensor([1, 0, 2, 3]))
    assert float(swapped) == 0.5


def test_labels_learnt_by_heart_are_a_probe_gap() -> None:
    """Random labels in many dimensions: no risk where fitted, chance elsewhere."""
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(100, 120, generator=random), torch.randint(2, (100,), generator=random)
    x_test, y_test = torch.randn(100, 120, generator=random), torch.randint(2, (100,), generator=random)
    parts = risks(fit(x, y, 2, 1e-3), x, y, x_test, y_test)
    assert len(parts.seen) == 100
    assert len(parts.unseen) == 20
    assert parts.seen.mean() == 0
    assert parts.unseen.mean() > 0.2
    assert parts.test.mean() > 0.3


def test_the_difference_of_means_has_an_interval_about_it() -> None:
    random = np.random.default_rng(0)
    a, b = random.random(400) < 0.2, random.random(400) < 0.5
    gap = difference_of_means(a, b, 300, 0)
    assert gap.low < gap.value < gap.high
    assert gap.value == pytest.approx(b.mean() - a.mean())
    assert gap.low > 0


def test_what_cannot_be_measured_is_said() -> None:
    with pytest.raises(DataError, match="needs four"):
        instance_probes(torch.randn(5, 3, 3))
    with pytest.raises(DataError, match="at least two of each"):
        groupings(1, 16, 2)
    x = torch.randn(6, 2)
    with pytest.raises(DataError):
        risks(fit(x, torch.arange(6), 6, 1.0), x, torch.arange(6), x, torch.arange(6))

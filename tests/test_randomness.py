"""Keys, orders and uniforms are functions of what they are for, and look random."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressl.randomness import generator, key, permutation, uniforms

COUNT = 20_000


def test_keys_are_stable_distinct_and_positive():
    # fixed numbers: a run resumed by a later version must draw what it drew before
    assert key("order", 0, 1) == 6131675628704262613
    drawn = uniforms(key("views", 0), torch.tensor([0, 7]), 2) * 2**24
    assert drawn.tolist() == [[16714450, 15232145], [3989816, 15122857]]
    keys = {key(purpose, *parts) for purpose in ("order", "views") for parts in [(), (0,), (1,), (0, 1), (1, 0), (11,)]}
    assert len(keys) == 12
    assert all(0 <= value < 2**63 for value in keys)
    assert key("order", 1, 1) != key("order", 11)


def test_generators_repeat_and_differ():
    first, again, other = (torch.rand(8, generator=generator("noise", part)) for part in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.rand(5)
    state = torch.random.get_rng_state()
    generator("noise", 3)
    assert torch.equal(torch.random.get_rng_state(), state)  # the global generator is left alone


@given(length=st.integers(1, 200), seed=st.integers(0, 2**31), epoch=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_every_epoch_is_a_permutation(length, seed, epoch):
    order = permutation(length, seed, epoch)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(length))
    assert torch.equal(order, permutation(length, seed, epoch))


def test_epochs_and_seeds_differ():
    orders = [permutation(100, seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    for i, order in enumerate(orders):
        assert all(not torch.equal(order, other) for other in orders[:i])
    # every image comes first about equally often
    firsts = torch.stack([permutation(4, 0, epoch)[0] for epoch in range(2000)]).bincount(minlength=4)
    assert (firsts - 500).abs().max() < 5 * math.sqrt(2000 * 0.25 * 0.75)


@given(
    seed=st.integers(0, 99),
    counters=st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20),
    count=st.integers(1, 9),
)
@settings(max_examples=30, deadline=None)
def test_a_row_depends_on_its_counter_alone(seed, counters, count):
    stream = key("views", seed)
    whole = uniforms(stream, torch.tensor(counters), count)
    assert whole.shape == (len(counters), count)
    assert whole.dtype == torch.float32
    assert (whole >= 0).all()
    assert (whole < 1).all()
    for row, counter in zip(whole, counters, strict=True):
        assert torch.equal(uniforms(stream, torch.tensor([counter]), count)[0], row)
    order = torch.randperm(len(counters), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(uniforms(stream, torch.tensor(counters)[order], count), whole[order])
    # asking for more uniforms leaves the first ones as they were
    assert torch.equal(uniforms(stream, torch.tensor(counters), count + 3)[:, :count], whole)


@pytest.mark.parametrize("counters", [torch.arange(COUNT), torch.arange(COUNT) * 2**20 + 5, -torch.arange(COUNT)])
def test_equidistribution(counters):
    u = uniforms(key("views", 0), counters, 6).double()
    for column in u.T:
        observed = torch.histc(column, 64, 0, 1)
        chi_squared = ((observed - COUNT / 64).square() / (COUNT / 64)).sum().item()
        assert abs(chi_squared - 63) < 5 * math.sqrt(2 * 63)
        assert abs(column.mean().item() - 0.5) < 5 * math.sqrt(1 / 12 / COUNT)


def test_lanes_streams_and_neighbours_are_uncorrelated():
    counters = torch.arange(COUNT)
    first = uniforms(key("views", 0), counters, 4)
    other = uniforms(key("views", 1), counters, 4)
    table = torch.cat([first[:-1], other[:-1], first[1:]], dim=1).double()  # columns: lanes, another stream, next image
    correlation = torch.corrcoef(table.T) - torch.eye(12, dtype=torch.float64)
    assert correlation.abs().max().item() < 5 / math.sqrt(COUNT)
    # the low bits are as good as the high ones
    low = (first * 2**24).to(torch.int64) % 16
    counts = low.flatten().bincount(minlength=16)
    assert (counts - 4 * COUNT / 16).abs().max() < 5 * math.sqrt(4 * COUNT / 16)
    assert (first.flatten().unique().numel()) > 0.99 * first.numel()


def test_every_bit_of_the_counter_matters():
    bits = torch.tensor([0] + [1 << bit for bit in range(63)])
    u = uniforms(key("views", 0), bits, 2)
    assert u.unique(dim=0).shape[0] == 64
    assert (u[1:] - u[0]).abs().mean() > 0.2

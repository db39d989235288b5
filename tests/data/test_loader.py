from __future__ import annotations

import gc
import threading
import time
from itertools import chain

import numpy as np
import pytest
import torch

from compressl.data import Batches, PackedImages, batches
from compressl.errors import DataError, UsageError


def run(packed: PackedImages, **options) -> list:
    defaults = {"batch_size": 4, "seed": 0, "start_step": 0, "total_steps": 6, "device": "cpu"}
    with batches(packed, **(defaults | options)) as steps:
        return list(steps)


def order(found: list) -> list[list[int]]:
    return [batch.indices.tolist() for batch in found]


def flat(lists) -> list[int]:
    return list(chain.from_iterable(lists))


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "compressl-batches"]


@pytest.mark.parametrize("resident", [False, True])
def test_batches_hold_what_their_indices_say(resident: bool, numbered) -> None:
    packed = numbered(10).subset(np.array([9, 8, 7, 6, 5, 4]))
    for step, batch in enumerate(run(packed, resident=resident, batch_size=3)):
        assert batch.step == step
        assert batch.epoch == step // 2
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (3, 4, 4, 3)
        assert batch.images[:, 0, 0, 0].tolist() == [9 - index for index in batch.indices.tolist()]
        assert batch.geometry.tolist() == [[4, 4]] * 3
        assert batch.geometry.dtype == torch.int32
        assert batch.indices.dtype == torch.int64


def test_an_epoch_is_a_permutation_of_its_own(numbered) -> None:
    packed = numbered(40)
    found = order(run(packed, batch_size=8, total_steps=15))
    epochs = [flat(found[first : first + 5]) for first in (0, 5, 10)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(40))
        assert epoch != list(range(40))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert order(run(packed, batch_size=8, total_steps=15, seed=1)) != found


def test_what_is_left_over_is_dropped(numbered) -> None:
    found = run(numbered(10), total_steps=5)  # 2 steps of 4 in an epoch of 10
    assert [batch.epoch for batch in found] == [0, 0, 1, 1, 2]
    assert len(set(flat(order(found[:2])))) == 8


@pytest.mark.parametrize("resident", [False, True])
def test_resuming_at_any_step_continues_the_same_order(resident: bool, numbered) -> None:
    packed = numbered(14)
    whole = order(run(packed, total_steps=12))
    for start in range(13):
        assert order(run(packed, total_steps=12, start_step=start, resident=resident)) == whole[start:]


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_same_global_batch(world_size: int, numbered) -> None:
    packed = numbered(21)
    whole = order(run(packed, batch_size=8))
    parts = [order(run(packed, batch_size=8, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert [flat(shares) for shares in zip(*parts, strict=True)] == whole


def test_impossible_batches_say_what_to_change(numbered) -> None:
    with pytest.raises(DataError, match=r"3 images, fewer than a batch of 4\. Choose a --batch-size of at most 3"):
        run(numbered(3))
    with pytest.raises(UsageError, match=r"cannot be shared by 3 processes.*--batch-size"):
        run(numbered(8), world_size=3)
    with pytest.raises(UsageError, match="--batch-size"):
        run(numbered(8), batch_size=0)


def test_the_thread_ends_with_the_iterator(numbered) -> None:
    packed = numbered(8)
    run(packed)
    assert threads() == []
    steps = batches(packed, batch_size=4, seed=0, start_step=0, total_steps=1000, device="cpu")
    next(steps)
    assert len(threads()) == 1
    steps.close()
    steps.close()
    assert threads() == []
    with pytest.raises(StopIteration):
        next(steps)


def test_dropping_the_iterator_ends_the_thread(numbered) -> None:
    steps = batches(numbered(8), batch_size=4, seed=0, start_step=0, total_steps=1000, device="cpu")
    next(steps)
    del steps
    gc.collect()
    deadline = time.monotonic() + 5
    while threads() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threads() == []


def test_an_exception_in_the_thread_surfaces_at_its_step(numbered, monkeypatch) -> None:
    packed = numbered(8)
    calls = []
    original = PackedImages.gather

    def gather(self: PackedImages, indices: np.ndarray) -> object:
        calls.append(indices)
        if len(calls) == 3:
            raise OSError("the disk is gone")
        return original(self, indices)

    monkeypatch.setattr(PackedImages, "gather", gather)
    steps: Batches = batches(packed, batch_size=4, seed=0, start_step=0, total_steps=10, device="cpu")
    assert [next(steps).step, next(steps).step] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(steps)
    assert threads() == []
    assert len(calls) == 3


def test_waiting_is_counted_and_gathering_is_ahead(numbered, monkeypatch) -> None:
    original = PackedImages.gather
    monkeypatch.setattr(PackedImages, "gather", lambda self, i: time.sleep(0.05) or original(self, i))
    packed = numbered(8)
    waited = {}
    for busy in (0.0, 0.15):
        with batches(packed, batch_size=4, seed=0, start_step=0, total_steps=5, device="cpu") as steps:
            for _ in steps:
                time.sleep(busy)
            waited[busy] = steps.waited
    assert waited[0.0] > 0.2
    assert waited[0.15] < 0.15  # the first batch alone, and what the machine adds

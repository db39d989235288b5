"""Parts of a batch on threads: all of it once, what surrounds them, failures, forks."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest
import torch

from compressl.views.threads import in_parts, one_thread


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize(("n", "most"), [(0, 4), (1, 4), (7, 3), (8, 100), (9, 1)])
def test_every_row_once(threads: int, n: int, most: int) -> None:
    seen: list[range] = []
    in_parts(lambda part: seen.append(range(part.start, part.stop)), n, most)
    assert sorted(row for rows in seen for row in rows) == list(range(n))
    assert all(0 < len(rows) <= most for rows in seen)
    assert len(seen) >= min(n, threads)


def test_what_surrounds_the_work(threads: int) -> None:
    states = []

    def work(_: slice) -> None:
        states.append(
            (
                torch.get_num_threads(),
                torch.is_grad_enabled(),
                torch.is_autocast_enabled("cpu"),
                torch.is_inference(torch.ones(1)),
            )
        )

    with torch.autocast("cpu"):
        in_parts(work, 6, 1)
        with torch.inference_mode():
            in_parts(work, 6, 1)
        assert torch.is_autocast_enabled("cpu")
    assert set(states[:6]) == {(1, False, False, False)}
    assert set(states[6:]) == {(1, False, False, True)}
    assert torch.is_grad_enabled()
    assert torch.get_num_threads() == threads


def test_a_failure_comes_through(threads: int) -> None:
    def work(part: slice) -> None:
        if part.start == 2:
            raise ValueError("part 2")

    with pytest.raises(ValueError, match="part 2"):
        in_parts(work, 6, 1)
    assert torch.get_num_threads() == threads
    test_every_row_once(threads, 7, 3)  # and the threads are still of use


def test_threads_do_not_pile_up(threads: int) -> None:
    all_at_work = threading.Barrier(threads, timeout=30)
    in_parts(lambda _: all_at_work.wait(), 12, 1)  # so that every thread has been started
    alive = set(threading.enumerate())
    for _ in range(5):
        in_parts(lambda _: None, 12, 1)
    assert set(threading.enumerate()) <= alive  # threads that other tests have left may end meanwhile


@pytest.mark.skipif(not hasattr(os, "fork"), reason="This system does not fork.")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_after_a_fork(threads: int) -> None:
    total = torch.zeros(12)
    in_parts(lambda part: total[part].add_(1), 12, 1)  # the parent has its threads
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a child that waits for its parent's threads would wait for ever
        total.zero_()
        in_parts(lambda part: total[part].add_(1), 12, 1)
        os._exit(int(total.sum()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 12


def test_one_thread(threads: int) -> None:
    def fail() -> None:
        with one_thread():
            assert torch.get_num_threads() == 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == threads

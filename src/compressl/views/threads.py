"""A batch in parts, each on a thread of its own: operators of one thread do not wait for one another."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Operators inside have a single thread each: for short ones, that would wait for the others longer than they run.

    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def in_parts(work: Callable[[slice], None], n: int, most: int) -> None:
    """Call ``work`` on slices that make up ``range(n)``, of at most ``most`` each, and wait for all.

    The parts are as many as ``torch.get_num_threads()`` or a multiple of it, on as many threads. Inside ``work`` every
    operator has a single thread, whatever their number here: sums are taken in one order, so a result does not depend
    on it. Gradients are off inside, and autocast is.

    Raises:
        Exception: what ``work`` raised first, after all that had begun have ended.

    >>> x = torch.zeros(5)
    >>> in_parts(lambda part: x[part].add_(1), n=5, most=2)
    >>> x.tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    threads, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()
    parts = math.ceil(n / most)
    if threads > 1:
        parts = min(n, math.ceil(parts / threads) * threads)
    length = math.ceil(n / max(1, parts))

    def one(first: int) -> None:
        # These, too, are of a thread: the caller's are not seen here.
        with torch.inference_mode(inference), torch.no_grad(), torch.autocast("cpu", enabled=False):
            work(slice(first, min(n, first + length)))

    def one_in_pool(first: int) -> None:
        torch.set_num_threads(1)
        one(first)

    with one_thread():  # the caller's, and that of all threads that start meanwhile
        if threads == 1 or parts <= 1:
            for first in range(0, n, max(1, length)):
                one(first)
        else:
            tasks = [_pool(threads, os.getpid()).submit(one_in_pool, first) for first in range(0, n, length)]
            wait(tasks)
            for task in tasks:
                task.result()


@functools.lru_cache(maxsize=1)  # the threads of another number end with their pool
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that stay for the next batch. A forked process has none of its parent's and starts its own."""
    return ThreadPoolExecutor(threads, "views")

"""Processes that train together: how they meet, what they agree on, how they end.

A process that fails leaves its reason in the store where the processes met, and goes. The collective that another one
is in, or the next one, fails then and raises that reason: nobody waits for a process that is gone.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from compressl import errors
from compressl.errors import CompresslError, ResourceError, UsageError, first_line

MEETING = timedelta(minutes=5)  # until all processes are there
STEP = timedelta(minutes=30)  # a collective on tensors, and what the main process does between two steps
WAIT = timedelta(hours=24)  # a barrier, or a word of the main process: it may be decoding millions of images
PARTING = timedelta(seconds=10)  # the end of the process group after an error

T = TypeVar("T")


@dataclass(frozen=True)
class _Team:
    store: Store  # where a process that fails leaves its reason
    control: dist.ProcessGroup  # for flags and words: on the CPU, whatever computes, and patient


_team: _Team | None = None
_meetings = itertools.count()  # a script may train several times: what was said at one meeting is not for the next


@contextmanager
def processes() -> Iterator[None]:
    """Bring together the processes that torchrun started; does nothing for one alone, or where they are together.

    If the block fails, the process that failed first raises its error and the others end silently with the same exit
    code, so that a person reads everything once.

    Raises:
        UsageError: the processes did not find one another.

    >>> with processes():
    ...     world_size()
    1
    """
    global _team
    if os.environ.get("WORLD_SIZE", "1") == "1" or _initialized():
        yield
        return
    _team = _meet()
    try:
        yield
    except BaseException as error:
        if "TORCHELASTIC_RUN_ID" in os.environ and threading.current_thread() is threading.main_thread():
            # when one process ends, torchrun sends this to the others, and hides the exit code that they are leaving by
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        first = _leave_reason(error)
        _team = None
        _part()
        if isinstance(error, CompresslError) and not first:
            raise SystemExit(error.exit_code) from error
        raise
    _last_words(_team.store)
    _team = None
    dist.destroy_process_group()


def world_size() -> int:
    """How many processes train together.

    >>> world_size()
    1
    """
    return dist.get_world_size() if _initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0.

    >>> rank()
    0
    """
    return dist.get_rank() if _initialized() else 0


def is_main() -> bool:
    """Whether this process is the one that writes.

    >>> is_main()
    True
    """
    return rank() == 0


def own_device(device: torch.device) -> torch.device:
    """This process's part of what was asked for: of several CUDA devices the one with its number on this machine.

    Raises:
        UsageError: the processes cannot share this device.

    >>> own_device(torch.device("cpu"))
    device(type='cpu')
    """
    if world_size() == 1 or device.type == "cpu":
        return device
    if str(device) != "cuda":  # another kind, or one device for all
        raise UsageError(f"{world_size()} processes cannot share the device {device}.", "Give --device cuda or cpu.")
    if _local_rank() >= torch.cuda.device_count():
        raise UsageError(
            f"There are more processes on this machine than its {torch.cuda.device_count()} CUDA devices.",
            "Give torchrun's --nproc-per-node that many, or --device cpu.",
        )
    own = torch.device("cuda", _local_rank())
    torch.cuda.set_device(own)
    return own


def processes_here() -> int:
    """How many of the processes share this machine, and its memory.

    >>> processes_here()
    1
    """
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size())) if world_size() > 1 else 1


def any_rank(flag: bool) -> bool:
    """Whether the flag is up on any rank; the same answer on all of them.

    >>> any_rank(False)
    False
    """
    return bool(largest(torch.tensor([int(flag)])))


def largest(values: Tensor) -> Tensor:
    """The largest value over ranks of each of some integers, [N] -> [N] on the CPU.

    >>> largest(torch.tensor([0, 1]))
    tensor([0, 1])
    """
    if world_size() == 1:
        return values
    # whoever initialised torch.distributed may have a group for CUDA tensors alone
    there = values.cuda() if dist.get_backend(_control()) == "nccl" else values.clone()
    with collective():
        dist.all_reduce(there, dist.ReduceOp.MAX, _control())
    return there.cpu()


def from_main(compute: Callable[[], T]) -> T:
    """What the main process computes, on every process; the others wait for it.

    >>> from_main(lambda: 7)
    7
    """
    box = [compute() if is_main() else None]
    if world_size() > 1:
        with collective():
            dist.broadcast_object_list(box, src=0, group=_control())
    return cast(T, box[0])


def barrier() -> None:
    """Wait until every process is here."""
    any_rank(False)


@contextmanager
def in_turn() -> Iterator[None]:
    """The first process of each machine runs the block, then the others: what it left on the disk is there for them."""
    first = _local_rank() == 0
    if not first:
        barrier()
    yield
    if first:
        barrier()


def _meet() -> _Team:
    try:
        found, own, count = next(rendezvous("env://", timeout=MEETING))
        store = PrefixStore(f"compressl/{next(_meetings)}", found)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=own, world_size=count, timeout=STEP)
        return _Team(store, dist.new_group(backend="gloo", timeout=WAIT))
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"The {os.environ['WORLD_SIZE']} processes of WORLD_SIZE did not find one another: {first_line(error)}.",
            "Start several processes with `torchrun --nproc-per-node N -m compressl pretrain ...`; for one, unset "
            "WORLD_SIZE.",
        ) from error


def _last_words(store: Store) -> None:
    """Nobody leaves before the main process, which may still be writing: torchrun ends the others with the first."""
    with suppress(Exception):  # then the main process is gone
        if is_main():
            store.set("main is done", "1")
        else:
            store.wait(["main is done"], MEETING)


def _part() -> None:
    """Destroy the process group after an error, but do not wait for it long: NCCL waits for kernels that may themselves
    wait for a process that is gone."""

    def destroy() -> None:
        with suppress(Exception):  # what went wrong first is what counts
            dist.destroy_process_group()

    thread = threading.Thread(target=destroy, daemon=True)
    thread.start()
    thread.join(PARTING.total_seconds())


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def _control() -> dist.ProcessGroup | None:
    return None if _team is None else _team.control  # None: the group of whoever initialised torch.distributed


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", rank()))


def _leave_reason(error: BaseException) -> bool:
    """Tell the other processes why this one ends; whether it is the first to end, or cannot know."""
    kind, told = type(error).__name__, (getattr(error, "problem", str(error)), getattr(error, "next_step", ""))
    reason = json.dumps([rank(), kind, *told])
    with suppress(Exception):  # the store ends with the process that keeps it
        return _team is None or _team.store.compare_set("reason", "", reason) == reason.encode()
    return True


@contextmanager
def collective() -> Iterator[None]:
    """A collective: where it fails because another process is gone, that process's reason is raised."""
    try:
        yield
    except RuntimeError as error:
        if reason := _reason():
            raise reason from error
        if any(words in str(error).lower() for words in ("by peer", "timed out", "timeout", "broken pipe")):
            raise ResourceError(
                "Another process of this training is gone and did not say why.",
                "Perhaps the system ended it for want of memory. The same command continues from the last checkpoint.",
            ) from error
        raise


def _reason() -> CompresslError | None:
    """Why another process ended, if one said so."""
    with suppress(Exception):
        if _team is not None and _team.store.check(["reason"]):
            number, kind, problem, next_step = json.loads(_team.store.get("reason"))
            known = vars(errors).get(kind)
            return known(problem, next_step) if known else CompresslError(f"Process {number}: {kind}: {problem}")
    return None

"""Batches of packed images on a device, in an order that is a pure function of (seed, step)."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressl import randomness
from compressl.data.delivery import Batch, Parcel, delivery_to
from compressl.data.on_demand import OnDemand
from compressl.data.store import PackedImages
from compressl.devices import sent
from compressl.errors import DataError, ResourceError, UsageError

_DECODED_AHEAD = 4  # batches that wait where images are decoded on demand, which takes now longer, now shorter
_POLL = 0.1  # seconds after which the gathering thread looks whether it is still wanted


class Batches(Iterator[Batch]):
    """An iterator over the batches of the steps from ``start_step`` to ``total_steps``; made by :func:`batches`.

    ``waited`` is the time in seconds for which the consumer waited for data so far. ``close()`` ends the background
    thread; leaving a ``with`` block, exhausting the iterator or dropping it does too.
    """

    def __init__(self, make: Callable[[int], Batch], steps: range, device: torch.device, ahead: int) -> None:
        self.waited = 0.0
        self._steps = iter(steps)
        self._make = make
        self._delivery = delivery_to(device)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if ahead and len(steps):
            self._queue: queue.Queue[Parcel | BaseException] = queue.Queue(maxsize=ahead)
            arguments = (make, self._delivery.send, steps, self._queue, self._stop)
            self._thread = threading.Thread(target=_gather_ahead, args=arguments, name="compressl-batches", daemon=True)
            self._thread.start()
            weakref.finalize(self, self._stop.set)  # the thread knows the queue and not us: dropping us ends it

    def __next__(self) -> Batch:
        if self._stop.is_set():
            raise StopIteration
        step = next(self._steps, None)
        if step is None:
            self.close()
            raise StopIteration
        began = time.perf_counter()
        if self._thread is None:
            batch = self._make(step)
        else:
            found = self._queue.get()
            if isinstance(found, BaseException):
                self.close()
                raise found
            batch = self._delivery.receive(found)
        self.waited += time.perf_counter() - began
        return batch

    def close(self) -> None:
        """End the background thread and wait for it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Batches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def batches(
    packed: PackedImages,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    total_steps: int,
    device: torch.device | str,
    resident: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> Batches:
    """Batches of steps ``start_step`` to ``total_steps - 1``; the step is the whole state, so a resumed run continues
    with the very next batch.

    An epoch is ``len(packed) // batch_size`` steps over a permutation of its own; what is left over is dropped.
    ``batch_size`` counts the images of all processes: rank r of w takes rows ``r * b .. (r + 1) * b - 1`` of each
    batch, b = batch_size / w. With ``resident`` all images are put on the device once; otherwise a thread gathers
    one batch ahead, or a few where images are decoded on demand.

    Raises:
        DataError: if there are fewer images than a batch holds.
        UsageError: if the processes cannot share a batch evenly, or images that are decoded on demand are to be
            resident.
        ResourceError: if the resident images do not fit on the device.

    >>> import numpy as np
    >>> from compressl.data import ArraySource, pack
    >>> packed = pack(ArraySource(np.zeros((6, 4, 4, 1), np.uint8)), view_size=4, cache=None)
    >>> with batches(packed, batch_size=3, seed=0, start_step=1, total_steps=3, device="cpu") as steps:
    ...     [(batch.step, batch.epoch, tuple(batch.images.shape)) for batch in steps]
    [(1, 0, (3, 4, 4, 3)), (2, 1, (3, 4, 4, 3))]
    """
    if batch_size < 1 or batch_size % world_size:
        raise UsageError(
            f"A batch of {batch_size} images cannot be shared by {world_size} process{'es' * (world_size > 1)}.",
            "Choose a --batch-size that is a positive multiple of the number of processes.",
        )
    if len(packed) < batch_size:
        raise DataError(
            f"There are {len(packed)} images, fewer than a batch of {batch_size}.",
            f"Choose a --batch-size of at most {len(packed)}, or give more images.",
        )
    device = torch.device(device)
    positions = order(len(packed), batch_size, seed, rank, world_size)
    gather = _resident(packed, device) if resident else _streamed(packed)

    def make(step: int) -> Batch:
        epoch, indices = positions(step)
        return gather(step, epoch, indices)

    ahead = 0 if resident else _DECODED_AHEAD if packed.on_demand else 1
    return Batches(make, range(start_step, total_steps), device, ahead)


def order(
    length: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
) -> Callable[[int], tuple[int, Tensor]]:
    """The function from a step to its epoch and this rank's indices, int64 [batch_size / world_size].

    >>> epoch, indices = order(10, 4, seed=0)(2)  # 2 steps in an epoch
    >>> epoch, torch.equal(indices, randomness.permutation(10, 0, 1)[:4])
    (1, True)
    """
    steps_per_epoch = length // batch_size
    share = batch_size // world_size
    kept: dict[int, Tensor] = {}  # the permutation of one epoch: two would be 160 MB for ten million images

    def indices(step: int) -> tuple[int, Tensor]:
        epoch, position = divmod(step, steps_per_epoch)
        if epoch not in kept:
            kept.clear()
            kept[epoch] = randomness.permutation(length, seed, epoch)
        first = position * batch_size + rank * share
        return epoch, kept[epoch][first : first + share]

    return indices


def _resident(packed: PackedImages, device: torch.device) -> Callable[[int, int, Tensor], Batch]:
    if isinstance(packed.images, OnDemand):
        raise UsageError(
            "Images that are decoded on demand cannot be kept on the device.",
            "Pack them (--data.pack yes), or leave them where they are (--data.device no).",
        )
    try:
        images = _tensor(packed.images).to(device)
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            f"The {packed.images.nbytes / 1e9:.1f} GB of packed images do not fit on {device}.",
            "Keep them off the device, or choose a device with more memory.",
        ) from error

    rows, geometry = _tensor(packed.rows), _tensor(packed.geometry)

    def gather(step: int, epoch: int, indices: Tensor) -> Batch:
        there = sent(rows[indices], device)
        return Batch(images[there], geometry[indices], indices, epoch, step)

    return gather


def _streamed(packed: PackedImages) -> Callable[[int, int, Tensor], Batch]:
    def gather(step: int, epoch: int, indices: Tensor) -> Batch:
        images, geometry = packed.gather(indices.numpy())
        return Batch(torch.from_numpy(images), torch.from_numpy(geometry), indices, epoch, step)

    return gather


def _gather_ahead(
    make: Callable[[int], Batch],
    send: Callable[[Batch], Parcel],
    steps: range,
    ready: queue.Queue[Parcel | BaseException],
    stop: threading.Event,
) -> None:
    for step in steps:
        try:
            found: Parcel | BaseException = send(make(step))
        except BaseException as error:
            found = error  # raised again where the batch is asked for
        while not stop.is_set():
            try:
                ready.put(found, timeout=_POLL)
                break
            except queue.Full:
                continue
        if stop.is_set() or isinstance(found, BaseException):
            return


def _tensor(values: NDArray[Any]) -> Tensor:
    array = np.asarray(values)
    return torch.from_numpy(array if array.flags.writeable else array.copy())  # torch cannot hold what is read-only

"""A batch, and its way from the thread that gathers it to the device of whoever asked for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """The share of one process in the batch of one step; b = batch_size / world_size.

    The images are on the device. Their shapes and indices stay on the CPU, where views are drawn from them: asking a
    device for them would wait for all that it has to do.
    """

    images: Tensor  # uint8 [b, H, W, 3]
    geometry: Tensor  # int32 [b, 2]: original height and width
    indices: Tensor  # int64 [b]: entries of the packed images
    epoch: int
    step: int


@dataclass(frozen=True)
class Parcel:
    """A batch on its way; ``arrived`` is recorded behind its copy to the device."""

    batch: Batch
    arrived: torch.cuda.Event | None = None


class Delivery(Protocol):
    """How batches reach a device."""

    def send(self, batch: Batch) -> Parcel:
        """Called by the thread that gathers, ahead of the step."""
        ...

    def receive(self, parcel: Parcel) -> Batch:
        """Called by the consumer, at the step."""
        ...


class Direct:
    """Copied when it is asked for; on the processor, not copied at all."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def send(self, batch: Batch) -> Parcel:
        return Parcel(batch)

    def receive(self, parcel: Parcel) -> Batch:
        return replace(parcel.batch, images=parcel.batch.images.to(self._device))


class SideStream:
    """Copied to a CUDA device on a stream of its own, while the steps before are computed.

    Two things could go wrong, and both are ordered on the device, without waiting on the processor. The consumer's
    stream must not read a batch before it has arrived: it waits for the event. And the memory of a batch must not be
    given to a later copy while the consumer's stream still reads it: ``record_stream`` says so to the allocator.
    Pinned memory comes from PyTorch's allocator, which uses it again once the copies out of it are done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def send(self, batch: Batch) -> Parcel:
        pinned = batch.images.pin_memory()
        with torch.cuda.stream(self._stream):
            images = pinned.to(self._device, non_blocking=True)
        return Parcel(replace(batch, images=images), self._stream.record_event())

    def receive(self, parcel: Parcel) -> Batch:
        consumer = torch.cuda.current_stream(self._device)
        if parcel.arrived is not None:
            consumer.wait_event(parcel.arrived)
        parcel.batch.images.record_stream(consumer)
        return parcel.batch


def delivery_to(device: torch.device) -> Delivery:
    """The way to a device."""
    return SideStream(device) if device.type == "cuda" else Direct(device)

"""The order of events on the way to a device; on a GPU, the bits that arrive."""

from __future__ import annotations

import contextlib

import pytest
import torch

from compressl.data import Batch, batches
from compressl.data.delivery import Direct, SideStream, delivery_to


def batch() -> Batch:
    return Batch(torch.zeros(2, 3, 3, 3, dtype=torch.uint8), torch.zeros(2, 2), torch.arange(2), 0, 7)


def test_the_processor_gets_the_same_tensors() -> None:
    given, way = batch(), delivery_to(torch.device("cpu"))
    assert isinstance(way, Direct)
    assert way.receive(way.send(given)).images.data_ptr() == given.images.data_ptr()


def test_the_consumer_waits_for_the_copy_and_keeps_its_memory(monkeypatch) -> None:
    """With a pretended CUDA that writes down what it is asked for."""
    log: list[str] = []

    class Stream:
        def __init__(self, name: object) -> None:
            self.name = name

        def record_event(self) -> str:
            log.append(f"event on {self.name}")
            return "event"

        def wait_event(self, event: str) -> None:
            log.append(f"{self.name} waits for {event}")

    @contextlib.contextmanager
    def stream(which: Stream):
        log.append(f"enter {which.name}")
        yield
        log.append(f"leave {which.name}")

    original = torch.Tensor.to
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("side"))
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("main"))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: log.append("pin") or self)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, s: log.append(f"keep for {s.name}"))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, d, **o: log.append(f"copy {o}") or original(self, d, **o))

    way = SideStream(torch.device("cpu"))
    parcel = way.send(batch())
    assert log == ["pin", "enter side", "copy {'non_blocking': True}", "leave side", "event on side"]  # images alone
    log.clear()
    assert way.receive(parcel).step == 7
    assert log == ["main waits for event", "keep for main"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_what_arrives_on_a_gpu_is_what_was_sent(numbered) -> None:
    packed = numbered(64)
    options = {"batch_size": 16, "seed": 0, "start_step": 0, "total_steps": 40}
    busy = torch.randn(2048, 2048, device="cuda")
    with batches(packed, device="cpu", **options) as expected, batches(packed, device="cuda", **options) as found:
        there = []
        for one, other in zip(expected, found, strict=True):
            for _ in range(20):
                busy = (busy @ busy).tanh()  # the consumer's stream lags behind the copies
            there.append((one.images, other.images + 0))  # what it reads when it gets there
            assert torch.equal(one.indices, other.indices)
    for images, copied in there:
        assert torch.equal(images, copied.cpu())

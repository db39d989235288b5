"""What a process sets up for its device."""

from __future__ import annotations

import platform

import pytest
import torch

from compressl import devices


def test_a_number_arrives_whole() -> None:
    assert devices.Later(torch.tensor([1.5, 2.5]).sum()).wait().item() == 4.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_number_arrives_from_a_gpu() -> None:
    assert devices.Later(torch.full((1000, 1000), 1.0, device="cuda").sum()).wait().item() == 1e6


@pytest.mark.parametrize("deterministic", [True, False])
def test_cudnn_is_deterministic_unless_told_otherwise(deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", not deterministic)  # and back after the test
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", deterministic)
    devices.prepare_device(torch.device("cuda"), deterministic=deterministic)
    assert torch.backends.cudnn.deterministic is deterministic
    assert torch.backends.cudnn.benchmark is not deterministic


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is kept with glibc alone")
def test_freed_memory_is_kept() -> None:
    """A large array that follows another of its size needs no new pages."""
    import resource

    assert devices.keep_freed_memory()
    size = 64 * 2**20

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(size // 4)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert min(faults() for _ in range(3)) < size // 4096 // 10


def test_without_glibc_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not devices.keep_freed_memory()

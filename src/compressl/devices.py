"""Which device computes, in which precision, and what the machine is: for the run and for its record."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import sys
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from compressl import __version__
from compressl.errors import UsageError


def resolve_device(name: str) -> torch.device:
    """``auto`` takes CUDA, then Apple's GPU, then the CPU.

    Raises:
        UsageError: the device that was asked for is not there.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"Device {name} is not there: torch sees {torch.cuda.device_count()} CUDA devices.",
            "Use --device auto or cpu; `compressl doctor` says what torch can use.",
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("Device mps is not there.", "Use --device auto or cpu.")
    return device


def has_native_bf16(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 itself; emulated, it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return any(
            getattr(torch.cpu, probe, bool)() for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        )
    return False


def resolve_precision(name: str, device: torch.device) -> str:
    """``auto`` to ``bf16`` or ``fp32``."""
    if name == "auto":
        return "bf16" if has_native_bf16(device) else "fp32"
    return name


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """bf16 where it is safe; losses leave it again."""
    if precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def prepare_device(device: torch.device, *, deterministic: bool) -> None:
    """Settings of the whole process for a training on the device.

    On a GPU, which kernels cuDNN takes. On a CPU, glibc keeps what is freed: each step frees and allocates the same
    large arrays, and by default each of them would go back to the system and come again as pages to be cleared.
    """
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = deterministic
        torch.backends.cudnn.benchmark = not deterministic
    elif device.type == "cpu":
        keep_freed_memory()


def keep_freed_memory() -> bool:
    """Whether the C library could be told to keep freed memory for the next allocation (glibc can)."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL("libc.so.6").mallopt
    most_mapped, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
    return bool(mallopt(most_mapped, 0)) and bool(mallopt(trim_threshold, 2**31 - 1))


class Later:
    """A number on its way from the device, which goes on with what it is given meanwhile.

    >>> flag = Later(torch.tensor(True))
    >>> bool(flag.wait())
    True
    """

    def __init__(self, value: Tensor) -> None:
        self._value, self._there = value, None
        if value.is_cuda:
            self._value = value.to("cpu", non_blocking=True)  # into pinned memory
            self._there = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._there.record(torch.cuda.current_stream(value.device))  # which need not be the current device's

    def wait(self) -> Tensor:
        """The number, on the CPU."""
        if self._there is not None:
            self._there.synchronize()
        return self._value.cpu()


def sent(values: Tensor, device: torch.device) -> Tensor:
    """``values`` on ``device``. A GPU gets them when it comes to them; nobody waits for what it still has to do.

    >>> sent(torch.tensor([1.0]), torch.device("cpu"))
    tensor([1.])
    """
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)  # from pageable memory, torch would wait


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device, 0 if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/meminfo") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the CPU too, where torch says so in words only.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes do not match"))
    (True, False)
    """
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(w in str(error) for w in words)


def environment(device: torch.device, precision: str) -> dict[str, Any]:
    """What a result depends on besides its settings: versions, processor, threads."""
    import numpy
    import PIL

    return {
        "compressl": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a plain string: it travels in checkpoints
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "device": device.type,
        "precision": precision,
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or sys.platform

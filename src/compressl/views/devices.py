"""Numbers on their way to a device."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device) -> Tensor:
    """``values`` on ``device``. A GPU gets them when it comes to them; nobody waits for what it still has to do.

    >>> sent(torch.tensor([1.0]), torch.device("cpu"))
    tensor([1.])
    """
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)  # from pageable memory, torch would wait

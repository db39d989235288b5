"""A device without a device: tensors on the CPU which say that they are elsewhere.

A GPU refuses operators whose arguments lie on two devices, and makes the host wait wherever it is asked for a value.
A CPU shows neither. Here both show: mixed arguments raise :class:`Mixed`, and what would wait is written down with its
place. Everything is computed as on the CPU, to the same bits.

A torch backend cannot be taken back, so this is for a process of its own:

    python elsewhere.py settings.pickle     # {name: PretrainSettings}; prints {name: what it waited for} as JSON
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import compressl
from compressl.settings.pretrain import PretrainSettings
from compressl.training import loop, setup

NAME = "elsewhere"
PACKAGE = Path(compressl.__file__).parent
MEANT = "devices.py"  # the one answer that a step awaits, and sends from pinned memory
aten = torch.ops.aten
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
WAITING = {  # for a value, or for a shape that depends on values
    aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default, aten.masked_select.default,
    aten._unique2.default, aten.bincount.default, aten.repeat_interleave.Tensor, aten._linalg_check_errors.default,
    aten._linalg_eigh.default, aten._linalg_svd.default,
}  # fmt: skip
waits: list[str] = []
"""Of this process: the operator and the line of the package that asked."""


class Mixed(RuntimeError):
    """Arguments here and elsewhere."""


class Elsewhere(Tensor):
    """A tensor of the pretended device around one of the CPU."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        layout = {"strides": here.stride(), "storage_offset": here.storage_offset(), "dtype": here.dtype}
        made = Tensor._make_wrapper_subclass(cls, here.shape, device=torch.device(NAME, 0), **layout)
        made.here = here
        return made

    def __repr__(self) -> str:
        return f"Elsewhere({self.here!r})"

    def tolist(self) -> Any:
        _write_down("tolist")
        return self.here.tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """For functions that are given a device and no tensor of it."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


class _Generator(torch.Generator):
    def __new__(cls, device: torch.device | str = "cpu") -> _Generator:
        made = super().__new__(cls, "cpu" if _is_there(device) else device)
        made.claimed = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self.claimed


class _Backend:
    """The part of ``torch.cuda`` that torch asks any backend for."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def current_device(self) -> int:
        return 0

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def _is_there(device: torch.device | str | None) -> bool:
    return device is not None and torch.device(device).type == NAME


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    here = [tensor for tensor in tensors if not isinstance(tensor, Elsewhere)]
    device = kwargs.get("device")
    if not there and not _is_there(device):
        return function(*args, **kwargs)
    stays = bool(there) if device is None else _is_there(device)
    _judge(function, args, there, here, stays, blocking=not kwargs.get("non_blocking"))
    if _is_there(device):
        kwargs = kwargs | {"device": torch.device("cpu")}
    out = function(*tree_map(_bare, args), **tree_map(_bare, kwargs))
    if function is aten.copy_.default:
        return args[0]
    if not stays:
        return out
    out = tree_map(lambda x: Elsewhere(x) if type(x) is Tensor else x, out)
    return return_and_correct_aliasing(function, args, kwargs, out) if there else out


def _bare(x: Any) -> Any:
    return x.here if isinstance(x, Elsewhere) else x


def _judge(function: Any, args: Any, there: list[Elsewhere], here: list[Tensor], stays: bool, blocking: bool) -> None:
    """What a GPU would say: refuse, or make the host wait."""
    wide = [tensor for tensor in here if tensor.dim()]  # a single number may come from the host
    moved = function is aten._to_copy.default and stays != bool(there)
    if (there and function in WAITING) or (moved and blocking):
        _write_down(function)
    elif function is aten.copy_.default:
        if there and wide:
            _write_down(function)
    elif function in INDEXING and there:
        indices = [index for index in args[1] if index is not None]
        if not isinstance(args[0], Elsewhere) or (len(args) > 2 and any(args[2] is tensor for tensor in wide)):
            raise Mixed(f"{function}: an index elsewhere, or values here.")
        if any(not isinstance(index, Elsewhere) or index.dtype == torch.bool for index in indices):
            _write_down(function)
    elif there and wide:
        raise Mixed(f"{function} of {list(there[0].shape)} elsewhere and {list(wide[0].shape)} here.")


def _write_down(function: Any) -> None:
    frame = sys._getframe(1)
    while frame and PACKAGE not in (path := Path(frame.f_code.co_filename)).parents:
        frame = frame.f_back  # type: ignore[assignment]
    if frame and path.name != MEANT:
        waits.append(f"{function} in {path.relative_to(PACKAGE)}:{frame.f_lineno}")


@contextmanager
def pretended() -> Iterator[None]:
    """A device named ``elsewhere``."""
    if not hasattr(torch, NAME):
        _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=NAME) asks the mode too
    with _Mode(), torch.autograd.set_multithreading_enabled(False), patch("torch.Generator", _Generator):
        yield


def tiny_encoder(*_: object) -> nn.Module:
    """In place of one whose layers are all torch's own."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 16), nn.BatchNorm1d(16), nn.ReLU())


def train(settings: PretrainSettings) -> list[str] | str:
    """What the third step of four waited for, or the error that ended the training.

    The first steps prepare tables, the last one looks at the embeddings, scores and saves.
    """
    found: list[str] = []

    def after_step(step: int) -> None:
        if step == 2:
            waits.clear()
        if step == 3:
            found.extend(waits)

    try:
        loop.pretrain(settings, after_step=after_step)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return found


def main(path: str) -> None:
    cases = pickle.loads(Path(path).read_bytes())
    with pretended(), patch.object(loop, "ALARM_EVERY", 4), patch.object(setup, "create_encoder", tiny_encoder):
        print(json.dumps({name: train(settings) for name, settings in cases.items()}))


if __name__ == "__main__":
    main(sys.argv[1])

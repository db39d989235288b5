"""Batch norm over processes is batch norm over their whole batch. Run as a script, this file is those processes."""

from __future__ import annotations

import copy
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from compressl import distributed
from compressl.errors import UsageError
from compressl.models import synchronize

RANKS, SECONDS = 2, 80
DOUBLE, BRAIN = torch.float64, torch.bfloat16

CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], torch.dtype]] = {
    "rows": (lambda: nn.BatchNorm1d(3), (4, 3), DOUBLE),
    "one row each": (lambda: nn.BatchNorm1d(3), (2, 3), DOUBLE),
    "sequences": (lambda: nn.BatchNorm1d(3), (4, 3, 5), DOUBLE),
    "images": (lambda: nn.BatchNorm2d(3), (4, 3, 5, 2), DOUBLE),
    "volumes": (lambda: nn.BatchNorm3d(3), (4, 3, 2, 5, 2), DOUBLE),
    "cumulative": (lambda: nn.BatchNorm2d(3, momentum=None), (4, 3, 5, 2), DOUBLE),
    "not affine": (lambda: nn.BatchNorm1d(3, affine=False), (4, 3), DOUBLE),
    "no statistics": (lambda: nn.BatchNorm2d(3, track_running_stats=False), (4, 3, 5, 2), DOUBLE),
    "half precision": (lambda: nn.BatchNorm2d(3), (4, 3, 5, 2), BRAIN),
    "a slow copy inside": (lambda: nn.ModuleDict({"slow": nn.Sequential(nn.BatchNorm1d(3))})["slow"], (4, 3), DOUBLE),
}


def run(name: str, share: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Two training steps and a look in evaluation mode: outputs, gradients, state."""
    make, shape, dtype = CASES[name]
    torch.manual_seed(0)
    norm = make().to(DOUBLE if dtype is DOUBLE else torch.float32)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    keys = list(norm.state_dict())
    synchronize(norm)
    assert list(norm.state_dict()) == keys
    results: dict[str, Tensor] = {}
    for step in range(2):
        whole = (10 + 3 * torch.randn(shape, dtype=DOUBLE)).to(dtype)  # far from 0: one-pass variances would suffer
        x = share(whole).clone().requires_grad_()
        with torch.autocast("cpu", dtype=BRAIN, enabled=dtype is BRAIN):
            out = norm(x)
        weights = share(torch.randn(shape, dtype=DOUBLE))
        (out * weights).sum().backward()
        results |= {f"out {step}": out.detach(), f"gradient {step}": x.grad.clone()}  # type: ignore[union-attr]
    distributed.average_gradients(norm.parameters())
    results |= {f"parameter {n}": p.grad for n, p in norm.named_parameters() if p.grad is not None}
    if name != "no statistics":  # which sees its own images alone then: an evaluation is no common step
        results["evaluated"] = norm.eval()(x.detach().to(results["out 0"].dtype)).detach()
    return results | {f"state {n}": v.clone() for n, v in norm.state_dict().items()}


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    limit = timedelta(seconds=SECONDS / 2)
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", limit, world_size=RANKS, rank=rank)
    results: dict[str, Any] = {name: run(name, distributed.local) for name in CASES}

    class Strange(nn.BatchNorm2d):
        pass

    net = nn.Sequential(nn.BatchNorm1d(2), Strange(2))
    try:
        synchronize(net)
    except UsageError as refusal:
        results["refusal"] = str(refusal), type(net[0]).__name__
    twice = synchronize(synchronize(nn.BatchNorm1d(2)))
    results["twice"] = type(twice).__name__, type(copy.deepcopy(twice)).__name__
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes computed."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    done = subprocess.run([sys.executable, __file__, str(folder)], stderr=subprocess.PIPE, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_norm_of_the_whole_batch(ranks: list[dict[str, Any]], name: str) -> None:
    alone = run(name, lambda x: x)
    both = [results[name] for results in ranks]
    exact = {"rtol": 1e-11, "atol": 1e-11} if CASES[name][2] is DOUBLE else {"rtol": 1.6e-2, "atol": 2e-2}
    for key, expected in alone.items():
        if key.startswith("parameter"):  # of the mean over ranks of the sums, where this is the sum of all
            found = RANKS * both[0][key]
        elif key.startswith("state"):
            assert torch.equal(both[0][key], both[1][key])
            found = both[0][key]
        else:
            found = torch.cat([results[key] for results in both])
        torch.testing.assert_close(found, expected, **exact)  # type: ignore[arg-type]


def test_statistics_are_kept_in_full_precision(ranks: list[dict[str, Any]]) -> None:
    alone = run("half precision", lambda x: x)
    for name in ("state running_mean", "state running_var"):
        assert ranks[0]["half precision"][name].dtype is torch.float32
        torch.testing.assert_close(ranks[0]["half precision"][name], alone[name], rtol=1e-5, atol=1e-6)
    assert ranks[0]["half precision"]["out 0"].dtype is BRAIN


def test_a_norm_of_another_kind_is_refused_by_name_and_nothing_is_changed(ranks: list[dict[str, Any]]) -> None:
    words, first = ranks[0]["refusal"]
    assert words.startswith("Batch norm of kind Strange cannot be taken over several processes.")
    assert first == "BatchNorm1d"


def test_it_is_idempotent_and_survives_a_copy(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["twice"] == ("SynchronizedBatchNorm1d", "SynchronizedBatchNorm1d")


def test_with_one_process_nothing_changes() -> None:
    class Strange(nn.BatchNorm2d):
        pass

    net = nn.Sequential(nn.BatchNorm1d(2), Strange(2))
    assert synchronize(net) is net
    assert [type(norm) for norm in net] == [nn.BatchNorm1d, Strange]


if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=worker, args=(rank, sys.argv[1]), daemon=True) for rank in range(RANKS)]
    for process in started:
        process.start()
    for process in started:
        process.join(SECONDS)
    sys.exit(any(process.exitcode != 0 for process in started))

"""Several processes train as one does on the whole batch: every method, step after step, to rounding in float64.

Run as a script, this file is those processes: they import torch once, are forked, and take every method in turn.
"""

from __future__ import annotations

import math
import multiprocessing
import subprocess
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from small import small_settings
from torch import Tensor, nn

from compressl import distributed
from compressl.methods import METHODS, create_method
from compressl.models import chunked, synchronize
from compressl.randomness import generator
from compressl.settings.methods import METHODS as SETTINGS

IMAGES, STEPS, FEATURES = 16, 3, 8
RANKS = (2, 4)
NUMBERS: dict[str, tuple[str, dict[str, Any]]] = {  # what has state, noise or collectives of its own
    "queue": ("swav", {"queue": 24, "queue_start": 0.0}),
    "frozen prototypes": ("swav", {"freeze": 0.9}),
    "frozen last layer": ("dino", {"freeze": 0.9}),
    "gaussian": ("stochcon", {"latent": "gaussian", "symmetric": True, "kl_weight": 0.1}),
    "siamese": ("mveb", {"target": "siamese", "estimator": "sphere"}),
    "target residual bits": ("c-simclr", {"target_residual_bits": 1.0}),
    "target residual bits of a slow copy": ("c-byol", {"target_residual_bits": 1.0}),
    "target entropy bits": ("dissl", {"target_entropy_bits": 2.0}),
}
PARTS = "micro-batches"  # of the encoder, whose norms are synchronised over each of them
Case = tuple[str, int, str]  # method, small crops, what of NUMBERS, or PARTS
CASES: list[Case] = [
    *((name, 0, "") for name in METHODS),
    *((name, 2, "") for name in METHODS if SETTINGS[name].multi_crop),
    *((name, 0, label) for label, (name, _) in NUMBERS.items()),
    *((name, 0, PARTS) for name in ("c-simclr", "c-byol")),  # views together, and one by one with a slow copy
    ("dino", 2, PARTS),
]
SECONDS = 240  # for all of it; a machine with two cores that does nothing else needs about 15
pytestmark = pytest.mark.timeout(SECONDS + 30)

Step = dict[str, dict[str, Tensor]]


def train(name: str, local: int, label: str, share: Any, *, norms_over_ranks: bool = True) -> list[Step]:
    """Three steps of a method on this process's share of each batch: loss, terms, gradients and state of each step."""
    torch.manual_seed(0)
    encoder = nn.Sequential(
        *(nn.Conv2d(3, FEATURES, 3, bias=False), nn.BatchNorm2d(FEATURES), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        nn.Flatten(),
    )
    dtype = torch.float64
    _, numbers = NUMBERS.get(label, (name, {}))
    encoder = chunked(encoder, 2 if label == PARTS else 1)
    method = create_method(small_settings(name, **numbers), encoder, FEATURES).to(dtype).train()
    if norms_over_ranks:
        synchronize(method)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    torch.manual_seed(distributed.rank())  # a method that draws from here, and not from its generator, is found out
    steps: list[Step] = []
    for step in range(STEPS):
        pixels = generator("pixels", step)
        image = torch.randn(IMAGES, 3, 8, 8, generator=pixels)
        views = [
            share(image[..., :side, :side] + 0.3 * torch.randn(IMAGES, 3, side, side, generator=pixels)).to(dtype)
            for side in [8, 8, *[6] * local]
        ]
        method.before_step(0.5)
        loss, terms = method(views, generator("noise", step))
        loss.backward()
        distributed.average_gradients(method.parameters())
        values = distributed.average({"loss": loss.detach()} | terms)
        gradients = {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}
        optimizer.step()
        method.after_step(0.5)
        optimizer.zero_grad()
        state = {n: v.clone() for n, v in method.state_dict().items()}
        steps.append({"values": values, "gradients": gradients, "state": state})
    return steps


def worker(rank: int, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous-{ranks}"
    dist.init_process_group("gloo", rendezvous, timedelta(seconds=SECONDS / 4), world_size=ranks, rank=rank)
    results: dict[Any, Any] = {}
    for case in CASES:
        try:
            results[case] = train(*case, distributed.local)
        except Exception:  # the other methods have their turn all the same
            results[case] = traceback.format_exc()
    results["norms apart"] = train("byol", 0, "", distributed.local, norms_over_ranks=False)
    torch.save(results, f"{folder}/{ranks}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two and four processes left what they computed."""
    path: Path = tmp_path_factory.mktemp("processes")
    done = subprocess.run([sys.executable, __file__, str(path)], stderr=subprocess.PIPE, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def alone() -> dict[Any, list[Step]]:
    """What one process computes on the whole batch, method by method as they are asked for."""
    return {}


@pytest.fixture(scope="module", params=RANKS, ids=lambda ranks: f"{ranks} processes")
def together(request: pytest.FixtureRequest, folder: Path) -> list[dict[Any, Any]]:
    return [torch.load(folder / f"{request.param}-{rank}.pt") for rank in range(request.param)]


def _distance(these: list[Step], those: list[Step]) -> float:
    """The largest difference between two trainings, relative to what it is a difference of; 1 if parts are missing."""
    largest = 0.0
    for this, that in zip(these, those, strict=True):
        for part in this:
            if this[part].keys() != that[part].keys():
                return 1.0
            whole = max(float(value.double().norm()) for value in that[part].values())
            for name, value in that[part].items():
                # a gradient that is zero but for rounding (of a bias before a norm, say) is compared with the others
                scale = max(float(value.double().norm()), 1e-3 * whole, 1e-12)
                difference = float((this[part][name].double() - value.double()).norm()) / scale
                assert math.isfinite(difference), name
                largest = max(largest, difference)
    return largest


def _spoken(case: Case) -> str:
    name, small, label = case
    return f"{name}{' with small crops' if small else ''}{f', {label}' if label else ''}"


@pytest.mark.parametrize("case", CASES, ids=_spoken)
def test_processes_train_as_one(together: list[dict[Any, Any]], alone: dict[Any, list[Step]], case: Case) -> None:
    if case not in alone:
        alone[case] = train(*case, lambda view: view)
    for results in together:
        assert not isinstance(results[case], str), results[case]
        assert _distance(results[case], alone[case]) < 1e-10


def test_norms_of_their_own_batch_would_show(together: list[dict[Any, Any]]) -> None:
    assert _distance(together[0]["norms apart"], train("byol", 0, "", lambda view: view)) > 1e-3


@pytest.mark.parametrize("case", CASES, ids=_spoken)
def test_a_part_of_the_batch_alone_would_show(case: Case) -> None:
    part = train(*case, lambda view: view[: IMAGES // 2])
    assert _distance(part, train(*case, lambda view: view)) > 1e-3


if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=worker, args=(r, n, sys.argv[1]), daemon=True) for n in RANKS for r in range(n)]
    for process in started:
        process.start()
    for process in started:
        process.join(SECONDS)
    sys.exit(any(process.exitcode != 0 for process in started))

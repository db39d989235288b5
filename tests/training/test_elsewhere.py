"""On a device that is not the CPU: no step mixes devices, and none waits but for the one answer it needs."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils import backend_registration

from compressl.methods import METHODS
from compressl.settings.pretrain import OptimizerSettings, PretrainSettings
from compressl.settings.views import ViewsSettings

Make = Callable[..., PretrainSettings]
Trainings = Callable[[dict[str, PretrainSettings]], dict[str, str | list[str]]]

VARIANTS = {  # numbers and fields that lead a step another way
    "c-byol, target": ("c-byol", {"target_residual_bits": 1.0}, {}),
    "dissl, target": ("dissl", {"target_entropy_bits": 1.0}, {}),
    "stochcon, gaussian": ("stochcon", {"latent": "gaussian", "kl_weight": 0.1}, {}),
    "swav, queue and crops": ("swav", {"queue": 16, "queue_start": 0.0}, {"views": ViewsSettings(local=1)}),
    "byol, micro-batches and LARS": (
        "byol", {}, {"micro_batch": 8, "optimizer": OptimizerSettings(name="lars", clip=1.0)},
    ),
    "simsiam, passes and AdamW": ("simsiam", {}, {"accumulate": 2, "optimizer": OptimizerSettings(name="adamw")}),
}  # fmt: skip


@pytest.fixture
def elsewhere(tmp_path: Path) -> Trainings:
    """What a step of each of several trainings waited for on another device, or the error that ended the training."""
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this version of torch has no devices that are made in Python")

    def run(cases: dict[str, PretrainSettings]) -> dict[str, str | list[str]]:
        (tmp_path / "settings.pickle").write_bytes(pickle.dumps(cases))
        command = [sys.executable, str(Path(__file__).with_name("elsewhere.py")), str(tmp_path / "settings.pickle")]
        threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.timeout(300)  # some twenty trainings in one process
def test_no_step_mixes_devices_or_waits(make: Make, elsewhere: Trainings, tmp_path: Path) -> None:
    np.save(tmp_path / "images.labels.npy", np.arange(64) % 4)  # so that there is a score at the end

    def case(name: str, method: str, numbers: dict[str, Any] | None = None, **fields: Any) -> PretrainSettings:
        few = {"device": "elsewhere", "epochs": 1, "log_every": 100, "save_every_steps": 100, "knn_every": 0}
        return make(method, name, numbers, **few | {"views": ViewsSettings(recipe="crop")} | fields)

    cases = {name: case(name, name) for name in METHODS}
    cases |= {name: case(name, method, numbers, **fields) for name, (method, numbers, fields) in VARIANTS.items()}
    for name, device in (("there", "elsewhere"), ("here", "cpu")):  # with every operator, and a score
        cases[name] = case(name, "c-simclr", device=device, views=ViewsSettings(recipe="byol"), knn_every=1)
    assert {name: found for name, found in elsewhere(cases).items() if found} == {}
    ours, theirs = (load_file(tmp_path / run / "encoder.safetensors") for run in ("here", "there"))
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)

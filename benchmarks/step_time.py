"""A training step of every method against SimCLR's, in one process, in turn.

    python benchmarks/step_time.py
    python benchmarks/methods_page.py        # the page

Forward, backward, optimizer and slow copy on a constant batch; writes ``benchmarks/methods/step-time.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from methods import RESULTS

from compressl.devices import autocast, environment, resolve_device, resolve_precision
from compressl.methods import create_method
from compressl.models import create_encoder
from compressl.settings.encoder import EncoderSettings
from compressl.settings.methods import METHODS as SETTINGS
from compressl.settings.methods import MVEBSettings
from compressl.settings.pretrain import OptimizerSettings
from compressl.training.optimizers import create_optimizer

VARIANTS = {name: settings() for name, settings in SETTINGS.items()}
VARIANTS["mveb, siamese"] = MVEBSettings(target="siamese")


def step_time(batch_size: int, repeats: int, budget: float, width: float, names: list[str]) -> None:
    """A training step (forward, backward, optimizer, slow copy) of each method on a constant batch, in turn."""
    device = resolve_device("auto")
    precision = resolve_precision("auto", device)
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(batch_size, 3, 32, 32, generator=generator) for _ in range(2)]
    views = [view.to(device).contiguous(memory_format=torch.channels_last) for view in views]
    encoder_settings = EncoderSettings(width=width)
    made = {}
    for name in dict.fromkeys(["simclr", *names]):
        encoder = create_encoder(encoder_settings, 32, 0)
        method = create_method(VARIANTS[name], encoder, int(encoder.num_features), 0)
        method = method.to(device).to(memory_format=torch.channels_last)
        made[name] = method, create_optimizer(OptimizerSettings(), method)

    def step(name: str) -> float:
        method, optimizer = made[name]
        noise = torch.Generator(device).manual_seed(0)
        _wait(device)
        began = time.perf_counter()
        method.before_step(0.5)
        with autocast(device, precision):
            loss, _ = method(views, noise)
        loss.backward()
        optimizer.step()
        method.after_step(0.5)
        optimizer.zero_grad()
        _wait(device)
        return time.perf_counter() - began

    seconds: dict[str, list[float]] = {name: [] for name in made}
    began = time.monotonic()
    for name in made:
        step(name)  # memory is allocated, kernels are chosen
    for _ in range(repeats):
        for name in made:
            # SimCLR right before each: the machine's mood changes within a round
            base, own = step("simclr"), step(name)
            seconds[name].append(own / base)
        print(", ".join(f"{n} {statistics.median(r):.3f}" for n, r in seconds.items()), flush=True)
        if time.monotonic() - began > budget:
            break
    record = {
        "batch_size": batch_size,
        "encoder": f"resnet18 of width {width:g}, small stem, 32 px, two views",
        "heads": "each method's defaults",
        "environment": environment(device, precision),
        "ratio": {name: {"median": statistics.median(r), "all": r} for name, r in seconds.items()},
    }
    path = RESULTS / "step-time.json"
    if path.exists():  # of other methods, measured in the same way
        before = json.loads(path.read_text())
        if {k: v for k, v in before.items() if k != "ratio"} == {k: v for k, v in record.items() if k != "ratio"}:
            record["ratio"] = before["ratio"] | {name: record["ratio"][name] for name in names}
    path.write_text(json.dumps(record, indent=1) + "\n")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--budget", type=float, default=600.0, help="seconds after which no round is begun")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--methods", default=";".join(VARIANTS), help="separated by semicolons")
    given = parser.parse_args()
    step_time(given.batch_size, given.repeats, given.budget, given.width, given.methods.split(";"))


if __name__ == "__main__":
    main()

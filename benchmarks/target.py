"""Beta, adapted to hold the residual information at a target: the course of it, as a file and a picture.

    python benchmarks/target.py

C-SimCLR on the digits, in the budget of ``benchmarks/methods.toml``; writes ``benchmarks/methods/target.json`` and
``docs/target.png``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from methods import RESULTS, ROOT, comparable, settings

from compressl.devices import environment, resolve_precision
from compressl.runs import RunFolder
from compressl.settings.toml import to_toml
from compressl.training.loop import pretrain

matplotlib.use("Agg")


def target(bits: list[float]) -> None:
    """Residual information and beta of C-SimCLR on the digits under targets, step by step: a file and a picture."""
    torch.set_num_threads(1)
    courses = {}
    for value in bits:
        configuration = settings("digits", "c-simclr", 0)
        method = replace(configuration.method, target_residual_bits=value)  # type: ignore[call-arg]
        out = ROOT / "runs" / "methods" / "target" / f"{value:g}"
        run = RunFolder(out)
        if run.status() != "finished":
            run = pretrain(replace(configuration, method=method, out=out, log_every=1))
        lines = [line for line in run.read_metrics() if "beta" in line]
        courses[f"{value:g}"] = {
            "bits": [round(line["residual_information_excess"] / np.log(2), 4) for line in lines],
            "beta": [round(line["beta"], 5) for line in lines],
        }
    record = {
        "what": "C-SimCLR on the digits, --target-residual-bits",
        "environment": environment(torch.device("cpu"), resolve_precision("auto", torch.device("cpu"))),
        "settings": comparable(to_toml(configuration)),
        "courses": courses,
    }
    (RESULTS / "target.json").write_text(json.dumps(record) + "\n")
    draw_target(courses)


def draw_target(courses: dict[str, Any]) -> None:
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(7, 5), layout="constrained")
    for name, course in courses.items():
        smooth = np.convolve(course["bits"], np.ones(25) / 25, mode="valid")
        steps = np.arange(len(course["bits"]))[24:]
        (line,) = above.plot(steps, smooth, label=f"target {name} bits")
        above.axhline(float(name), color=line.get_color(), linewidth=0.8, linestyle="--")
        below.semilogy(course["beta"], color=line.get_color())
    above.set_ylabel("residual information\nabove its floor, bits")
    above.set_ylim(bottom=0)
    above.legend(frameon=False, fontsize=9)
    below.set_ylabel("beta")
    below.set_xlabel("step (bits: mean of 25)")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(ROOT / "docs" / "target.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", default="0.5,1,2")
    target([float(bits) for bits in parser.parse_args().bits.split(",")])


if __name__ == "__main__":
    main()

"""Exact search of nearest neighbours against faiss-cpu's, in one process, in turn.

    python benchmarks/knn.py                 # needs faiss-cpu: pip install faiss-cpu

10,000 queries against 50,000 rows of 512 features, k = 20; writes ``benchmarks/results/knn.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from compressl.devices import environment
from compressl.measures.knn import nearest

RESULT = Path(__file__).parent / "results" / "knn.json"


def compare(bank: int, queries: int, features: int, k: int, repeats: int) -> dict[str, object]:
    """Seconds of both for the whole task: from features to neighbours, normalisation and index included."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    generator = torch.Generator().manual_seed(0)
    x, q = (torch.randn(n, features, generator=generator).relu() for n in (bank, queries))

    def theirs() -> torch.Tensor:
        index = faiss.IndexFlatIP(features)
        index.add(F.normalize(x, dim=1).numpy())
        return torch.from_numpy(index.search(F.normalize(q, dim=1).numpy(), k)[1])

    ways: dict[str, Callable[[], torch.Tensor]] = {"compressl": lambda: nearest(x, q, k)[1], "faiss": theirs}
    same = float((ways["compressl"]() == ways["faiss"]()).float().mean())  # and memory is allocated
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats):
        for name in list(ways)[:: 1 if number % 2 else -1]:  # who goes first changes
            began = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - began)
        print(", ".join(f"{name} {runs[-1]:.2f} s" for name, runs in seconds.items()), flush=True)
    return {
        "task": f"{queries} queries, {bank} rows, {features} features, k = {k}, cosine, float32, exact",
        "faiss": f"{faiss.__version__}, IndexFlatIP on normalised rows",
        "environment": environment(torch.device("cpu"), "fp32"),
        "load": os.getloadavg()[1],  # of the machine: above the number of its processors, seconds say less
        "same_neighbours": same,
        "seconds": {name: {"median": statistics.median(runs), "all": runs} for name, runs in seconds.items()},
        "ratio": statistics.median(a / b for a, b in zip(*seconds.values(), strict=True)),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bank", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--k", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    try:
        record = compare(given.bank, given.queries, given.features, given.k, given.repeats)
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed: pip install faiss-cpu, in an environment of its own.")
    RESULT.write_text(json.dumps(record, indent=2) + "\n")
    print(f"{record['ratio']:.2f} times faiss's time; written to {RESULT}")

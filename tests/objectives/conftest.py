"""Fixed inputs with reference values computed in 45-digit arithmetic, and random ones."""

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from compressl.objectives.common import unit


@pytest.fixture(scope="session")
def reference_table():
    """The rows of a CSV file beside the tests, as dictionaries of floats."""

    def read(name):
        with (Path(__file__).parent / name).open() as file:
            return [{column: float(value) for column, value in row.items()} for row in csv.DictReader(file)]

    return read


@pytest.fixture(scope="session")
def fixed():
    """``fixed("S" or "L", kappa_e)``: raw embeddings X, Y, P1, ... and functions z, z_ of mean directions, float64."""

    def build(case, kappa_e=1024.0):
        images, dim, s = {"S": (4, 8, 0.0), "L": (8, 256, 2.0)}[case]
        i = torch.arange(images, dtype=torch.float64)[:, None]
        j = torch.arange(dim, dtype=torch.float64)[None, :]
        w = 1 - (0.9 + 0.05 * i) * (dim - 1) / (2 * kappa_e)

        def sampler(noise):
            def z(mean):
                tangent = unit(noise - (noise * mean).sum(-1, keepdim=True) * mean)
                return w * mean + (1 - w**2).sqrt() * tangent

            return z

        x = s * j.cos() + (1 + i + 2 * j + i * j).sin()
        y = x + 0.5 * (3 * i + j).cos()
        p1, p2 = (1 + 2 * i + 3 * j + i * j).sin(), (1 + i + 2 * j + i * j).cos()
        return SimpleNamespace(
            K=images,
            d=dim,
            X=x.requires_grad_(),
            Y=y.detach().clone().requires_grad_(),
            z=sampler((2 + 3 * i + 5 * j + i * j).cos()),
            z_=sampler((3 + 2 * i + 7 * j + i * j).sin()),
            P=(p1, p2),
            T=(p2 + 0.5 * (2 + i + j).sin(), p1 + 0.5 * (2 + i + j).cos()),
            M=(
                (x + 0.3 * (1 + 2 * i + 3 * j).cos()).detach().requires_grad_(),
                (y + 0.3 * (1 + 2 * i + 3 * j).sin()).detach().requires_grad_(),
            ),
        )

    return build


@pytest.fixture(scope="session")
def embeddings():
    """``embeddings(seed, count, images, dim)``: random raw embeddings, float64."""

    def draw(seed, count=2, images=5, dim=8):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, images, dim, generator=generator, dtype=torch.float64).unbind()

    return draw

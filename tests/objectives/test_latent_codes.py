"""Codes of bits as they are stored: packing, distances, sizes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressl.objectives import BernoulliLatent
from compressl.objectives.latents import (
    active_bits,
    code_bits,
    hamming,
    pack_bits,
)

SEEDS = st.integers(0, 999)


def draw(seed, images=64, dim=16):
    return torch.randn(images, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(seed=SEEDS, dim=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_packed_bits_are_numpys_and_their_distance_counts(seed, dim):
    alpha = draw(seed, images=6, dim=dim)
    code = alpha >= 0
    packed = BernoulliLatent().bits(alpha)
    assert packed.dtype == torch.uint8
    assert np.array_equal(packed.numpy(), np.packbits(code.numpy(), axis=1))
    assert np.array_equal(np.unpackbits(packed.numpy(), axis=1, count=dim), code.numpy())
    counted = (code[:, None] != code[None]).sum(-1)
    assert torch.equal(hamming(packed[:, None], packed[None]), counted)
    signs = 2 * code.double() - 1
    torch.testing.assert_close(signs @ signs.T / dim, 1 - 2 * counted.double() / dim)
    assert torch.equal(pack_bits(code.double()), packed)  # a hard sample is a code too


def test_compression():
    """How many times smaller a stored code is than a photograph, a pooled feature and a small photograph."""
    image, feature, small = torch.zeros(3, 224, 224).byte(), torch.zeros(2048), torch.zeros(3, 32, 32).byte()
    assert 8 * image.nbytes == 1_204_224
    for bits, ratios in {
        2048: (588, 32, 12),
        512: (2352, 128, 48),
        256: (4704, 256, 96),
        64: (18_816, 1024, 384),
        32: (37_632, 2048, 768),
    }.items():
        packed = BernoulliLatent().bits(torch.zeros(1, bits))
        assert packed.nbytes == bits / 8
        assert (image.nbytes / packed.nbytes, feature.nbytes / packed.nbytes, small.nbytes / packed.nbytes) == ratios
    assert BernoulliLatent().bits(torch.zeros(1, 11)).nbytes == 2  # 1.375 rounded up
    assert (image.nbytes / feature.nbytes, small.nbytes / feature.nbytes) == (18.375, 0.375)


def binary_entropy(p):
    if p in (0, 1):
        return 0.0
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_code_bits_lie_between_the_entropy_of_the_code_and_that_of_its_mean(seed):
    code = draw(seed, images=200, dim=4) + torch.tensor([-1.0, 0.0, 0.5, 2.0]) > 0
    code[:, 1] = code[:, 0] | code[:, 1]  # dependent bits
    _, counts = code.unique(dim=0, return_counts=True)
    p = counts.double() / 200
    joint = -(p * p.log2()).sum().item()
    bound = code_bits(code).item()
    assert bound == pytest.approx(sum(binary_entropy(p) for p in code.double().mean(0).tolist()), rel=1e-5)
    assert joint < bound + 1e-5
    assert bound <= 4 * binary_entropy(active_bits(code).item() / 4) + 1e-5


def test_code_bits_of_textbook_codes():
    assert code_bits(torch.ones(8, 5, dtype=torch.bool)) == 0
    assert code_bits(torch.arange(16)[:, None] >> torch.arange(4) & 1) == pytest.approx(4, rel=1e-6)
    for active, expected in ((566.4, 1742.3), (591.2, 1775.6), (598.2, 1784.6)):
        assert 2048 * binary_entropy(active / 2048) == pytest.approx(expected, abs=0.1)

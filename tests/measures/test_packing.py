"""Values of every image as text."""

from __future__ import annotations

import numpy as np
import pytest

from compressl.measures.packing import pack_bits, pack_floats, unpack_bits, unpack_floats


@pytest.mark.parametrize("count", [0, 1, 8, 13])
def test_round_trips(count: int) -> None:
    random = np.random.default_rng(count)
    bits, reals = random.random(count) < 0.5, random.standard_normal(count)
    assert np.array_equal(unpack_bits(pack_bits(bits), count), bits)
    assert np.array_equal(unpack_floats(pack_floats(reals)), reals.astype(np.float32))
    assert len(pack_bits(bits)) <= 4 * (count / 24 + 1)  # eight images a byte, four letters for three bytes

"""The examples run, and show what they say."""

from __future__ import annotations

import runpy
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_csimclr_in_a_foreign_loop() -> None:
    main = runpy.run_path(str(EXAMPLES / "c_simclr_in_your_loop.py"))["main"]
    one, three = main(epochs=1), main(epochs=3)
    assert three["mutual_information_bound"] > one["mutual_information_bound"] > 0
    assert three["contrastive_accuracy"] > 0.05  # chance: 1 of 511

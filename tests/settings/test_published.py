"""Recipes of the papers keep the papers' values where a default of ours is another."""

from __future__ import annotations

import pytest

from compressl.settings.loading import load_pretrain


@pytest.mark.parametrize("name", ["c-simclr-300", "c-simclr-1000", "c-byol-300", "c-byol-1000"])
def test_a_published_recipe_compresses_from_the_first_step_and_clips_nothing(name: str) -> None:
    settings = load_pretrain(["--recipe", f"imagenet/{name}", "--data", "photos"], prog="test")[0]
    assert settings.method.beta == 1.0  # type: ignore[attr-defined]
    assert settings.method.beta_schedule == "constant"  # type: ignore[attr-defined]
    assert not settings.optimizer.clip


def test_the_limit_of_a_method_can_be_lifted() -> None:
    limited, lifted = (
        load_pretrain(["--method", "c-byol", "--data", "photos", *more], prog="test")[0]
        for more in ([], ["--optimizer.clip", "0"])
    )
    assert limited.optimizer.clip == 0.5
    assert lifted.optimizer.clip == 0.0
    assert lifted.check() == []

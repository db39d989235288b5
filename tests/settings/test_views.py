"""Named views, what may differ from them, and small crops."""

from __future__ import annotations

import pytest

from compressl.settings.views import RECIPES, ViewsSettings


def test_two_views_unless_more_are_asked_for() -> None:
    for name in RECIPES:
        assert len(ViewsSettings(recipe=name).resolve(32)) == 2  # type: ignore[arg-type]


def test_small_crops_stand_behind_the_views_and_differ_in_size_and_share() -> None:
    views = ViewsSettings(recipe="byol", local=6).resolve(224)
    assert [view.size for view in views] == [224, 224] + [96] * 6
    assert all((view.min_scale, view.max_scale) == (0.05, 0.4) for view in views[2:])
    # the two views blur always and rarely, and the second alone is solarized
    assert {(view.blur, view.solarize) for view in views[2:]} == {(0.5, 0.0)}
    assert ViewsSettings(local=1, local_size=20).resolve(32)[2].size == 20
    assert ViewsSettings(local=1).resolve(32)[2].size == 16


def test_what_is_given_holds_for_all_views() -> None:
    own = {"grayscale": 1.0, "solarize": 0.5, "blur": 0.25, "jitter": 0.1}
    for view in ViewsSettings(recipe="byol", local=2, max_scale=0.9, **own).resolve(64):  # type: ignore[arg-type]
        assert (view.grayscale, view.blur, view.jitter) == (1.0, 0.25, 0.1)
        assert view.solarize == 0.5
    assert ViewsSettings(max_scale=0.9).resolve(64)[0].max_scale == 0.9


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (ViewsSettings(local=-1), "views.local must not be negative"),
        (ViewsSettings(local=2, local_min_scale=0.5), "views.local: 0 < min_scale"),
        (ViewsSettings(local=2, local_size=0), "views.local: size"),
        (ViewsSettings(solarize=2.0), "views: solarize"),
    ],
)
def test_impossible_numbers_have_a_sentence(settings: ViewsSettings, part: str) -> None:
    assert any(part in problem for problem in settings.check())

"""All operators as one function: the pixels of the pipeline, a graph without breaks, a compiler that fails."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from compressl.settings.views import RECIPES, ViewRecipe
from compressl.views import ViewParameters, Views, apply, color, draw, fused, store_boxes

LEVEL = 1 / 255
FULL = ViewRecipe(size=24, hue=0.4, blur=0.5, solarize=0.5, grayscale=0.3)
PLAIN = torch.contiguous_format


def given(recipe: ViewRecipe, n: int = 32) -> tuple[Tensor, Tensor, ViewParameters, Tensor]:
    """Images, geometry, parameters, and these packed."""
    images = torch.randint(0, 256, (n, 30, 30, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    geometry = torch.full((n, 2), 41)
    parameters = draw(recipe, geometry, torch.arange(n), 7)
    return images, geometry, parameters, fused.pack(parameters, store_boxes(parameters.boxes, geometry, (30, 30)))


@pytest.mark.parametrize("recipe", [FULL, replace(FULL, size=70), RECIPES["crop"][0], RECIPES["byol"][1]])
@pytest.mark.parametrize("normalized", [True, False])
def test_same_pixels(recipe: ViewRecipe, normalized: bool) -> None:
    recipe = replace(recipe, size=min(recipe.size, 70))
    images, geometry, parameters, numbers = given(recipe)
    ours = fused.augment(images, numbers, recipe, normalized, torch.channels_last)
    limit = LEVEL / (min(recipe.std) if normalized else 1)
    theirs = apply(images, geometry, parameters, recipe, normalized)
    assert (ours - theirs).abs().max() < limit
    assert (ours - theirs).abs().mean() < limit / 1000
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_every_order() -> None:
    images = torch.rand(24, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    parameters = given(FULL, 24)[2]
    parameters = replace(parameters, order=torch.arange(24))
    assert 0 < int((parameters.factors == torch.tensor(color.IDENTITY)).all(1).sum()) < 24
    numbers = fused.pack(parameters, parameters.boxes)
    planes = images.unbind(1)
    for slot in range(4):
        planes = fused._jitter(planes, numbers[:, 5 + slot].view(-1, 1, 1), numbers[:, 9 + slot].view(-1, 1, 1))
    x = torch.stack(planes, 1)
    theirs = color.color_jitter(images, parameters.factors, parameters.order)
    torch.testing.assert_close(x, theirs, atol=1e-5, rtol=0)
    idle = (parameters.factors == torch.tensor(color.IDENTITY)).all(1)
    assert torch.equal(x[idle], images[idle])


def test_one_graph() -> None:
    """Nothing on the way asks for a value, which would break the graph and make a GPU wait."""
    images, _, _, numbers = given(FULL)
    compiled = torch.compile(fused.augment, backend="eager", fullgraph=True, dynamic=False)
    out = compiled(images, numbers, FULL, True, PLAIN)
    torch.testing.assert_close(out, fused.augment(images, numbers, FULL, True, PLAIN), atol=1e-5, rtol=0)


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler for torch.compile here")
def test_the_compiler_takes_it() -> None:
    """Not all that torch traces can be lowered: an index made of an index could not. Jitter is left out for time."""
    recipe = replace(RECIPES["crop"][0], size=24, grayscale=0.3, blur=0.5, solarize=0.5)
    images, _, _, numbers = given(recipe, 4)
    compiled = torch.compile(fused.augment, fullgraph=True, dynamic=False)
    out = compiled(images, numbers, recipe, True, torch.channels_last)
    expected = fused.augment(images, numbers, recipe, True, torch.channels_last)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


def test_no_value_leaves_the_device() -> None:
    """A meta tensor has no values: to wait for one is an error."""
    images, _, _, numbers = given(FULL)
    out = fused.augment(images.to("meta"), numbers.to("meta"), FULL, True, PLAIN)
    assert out.shape == (32, 3, 24, 24)


def test_a_compiler_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        def run(*_: object) -> Tensor:
            raise RuntimeError("no compiler here\nand a long story")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    images, _, _, numbers = given(FULL)
    run = fused.Fused()
    assert torch.equal(run(images, numbers, FULL), fused.augment(images, numbers, FULL, True, PLAIN))
    assert run.problem == "no compiler here"
    assert torch.equal(run(images, numbers, FULL), fused.augment(images, numbers, FULL, True, PLAIN))


def test_a_failure_after_the_first_run_is_no_matter_of_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    images, _, _, numbers = given(FULL)
    run = fused.Fused()
    run(images, numbers, FULL)
    with pytest.raises(ValueError, match="uint8"):
        run(images.float(), numbers, FULL)
    assert run.problem is None


def test_on_a_cpu_nothing_is_compiled() -> None:
    images, geometry, _, _ = given(FULL)
    index = torch.arange(len(images))
    asked = Views((FULL,), 0, compile=True)
    assert torch.equal(asked(images, geometry, index, 0)[0], Views((FULL,), 0)(images, geometry, index, 0)[0])
    assert Views((FULL,), 0).try_compile(2, 8, 8, torch.device("cpu"), PLAIN) == "it was not asked for."


@pytest.mark.skipif(not torch.cuda.is_available(), reason="No GPU here.")
def test_compiled_on_a_gpu() -> None:
    images, geometry, _, _ = given(FULL)
    views = Views((FULL,), 0, compile=True)
    assert views.try_compile(32, 30, 30, torch.device("cuda"), torch.channels_last) is None
    index = torch.arange(len(images))
    ours = views(images.cuda(), geometry, index, 0, memory_format=torch.channels_last)[0]
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert (ours.cpu() - Views((FULL,), 0)(images, geometry, index, 0)[0]).abs().max() < LEVEL / min(FULL.std)

"""On a CUDA device: the pixels, the step and the training are those of the CPU, and a resume is exact."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small import small_settings

from compressl.methods import METHODS, create_method
from compressl.models import create_encoder
from compressl.runs import RunFolder
from compressl.settings.encoder import EncoderSettings
from compressl.settings.pretrain import OptimizerSettings, PretrainSettings
from compressl.settings.views import RECIPES
from compressl.training.loop import pretrain
from compressl.training.setup import prepare
from compressl.views import Views

Make = Callable[..., PretrainSettings]
LEVEL = 1 / 255


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # whose products have three digits
    return torch.device("cuda")


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("size", [32, 96])
@pytest.mark.parametrize("name", list(RECIPES))
def test_views_have_the_pixels_of_the_cpu(device: torch.device, name: str, size: int, compiled: bool) -> None:
    recipes = tuple(replace(recipe, size=size) for recipe in RECIPES[name])
    noise = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, size + 8, size + 8, 3), dtype=torch.uint8, generator=noise)
    geometry, indices = torch.randint(50, 300, (24, 2), generator=noise), torch.arange(24)
    there = Views(recipes, 0, compile=compiled)
    if compiled and device.type != "cpu":
        assert there.try_compile(24, size + 8, size + 8, device, torch.channels_last) is None
    ours, theirs = (
        views(stored, geometry, indices, 3, normalized=False, memory_format=torch.channels_last)
        for views, stored in ((Views(recipes, 0), images), (there, images.to(device)))
    )
    for one, other in zip(ours, theirs, strict=True):
        assert other.device.type == device.type
        assert other.is_contiguous(memory_format=torch.channels_last)
        difference = (one - other.cpu()).abs()
        assert difference.max() < LEVEL  # an image of noise has a hue at every edge of its sextants
        assert difference.mean() < LEVEL / 100


@pytest.mark.parametrize("name", list(METHODS))
def test_loss_and_gradient_are_those_of_the_cpu(device: torch.device, name: str) -> None:
    encoder = create_encoder(EncoderSettings(width=0.125), 16, seed=0)
    here = create_method(small_settings(name), encoder, 64)
    there = copy.deepcopy(here).to(device)
    noise = torch.Generator().manual_seed(1)
    image = torch.rand(16, 3, 16, 16, generator=noise)
    views = [image + 0.1 * torch.randn(image.shape, generator=noise) for _ in range(2)]
    results = []
    for method in (here, there):
        method.before_step(0.5)
        place = next(method.parameters()).device
        loss, terms = method([view.to(place) for view in views], torch.Generator().manual_seed(2))
        loss.backward()
        assert {value.device.type for value in terms.values()} == {place.type}
        gradients = [p.grad.flatten() for p in method.parameters() if p.grad is not None]
        results.append((loss.item(), torch.cat(gradients).cpu()))
        method.after_step(0.5)
    (loss, gradient), (loss_there, gradient_there) = results
    assert loss_there == pytest.approx(loss, rel=1e-4, abs=1e-5)
    assert len(gradient_there) == len(gradient)
    assert (gradient_there - gradient).norm() < 1e-2 * gradient.norm()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["c-simclr", "c-byol", "stochcon", "swav", "mveb"])
def test_a_resumed_training_ends_as_one_that_nothing_disturbed(
    device: torch.device, method: str, precision: str, check_resume: Callable[..., None]
) -> None:
    check_resume(6, method=method, device=device.type, precision=precision, optimizer=OptimizerSettings(clip=1.0))


@pytest.mark.parametrize("where", ["yes", "no"])
def test_images_kept_there_or_sent_are_the_same_training(
    device: torch.device, where: str, make: Make, tmp_path: Path
) -> None:
    def losses(settings: PretrainSettings, kept: str) -> list[float]:
        pretrain(replace(settings, data=replace(settings.data, device=kept)))
        return [line["loss"] for line in RunFolder(settings.run_folder()).read_metrics()]

    here, there = losses(make(out="here"), "yes"), losses(make(out="there", device=device.type), where)
    assert there[0] == pytest.approx(here[0], rel=1e-3)
    assert there == pytest.approx(here, rel=0.1)  # roundings grow with the steps


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("method", ["c-simclr", "c-byol"])
def test_a_compiled_training_agrees(device: torch.device, method: str, graphs: bool, make: Make) -> None:
    plain = make(method, "plain", device=device.type)
    compiled = replace(plain, out=plain.run_folder().with_name("compiled"), compile=True, cuda_graphs=graphs)
    if device.type == "cuda":
        training = prepare(compiled)
        assert training.compiled
        assert training.graphs == graphs
        assert not [note for note in training.notes if " off: " in note]
    losses = []
    for settings in (plain, compiled):
        pretrain(settings)
        losses.append([line["loss"] for line in RunFolder(settings.run_folder()).read_metrics()])
    assert all(map(math.isfinite, losses[1]))
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-3)
    assert losses[1] == pytest.approx(losses[0], rel=0.1)

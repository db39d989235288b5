"""The drawn parameters have torchvision's distributions. Seeds are fixed; a wrong range or a missing rounding fails."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from scipy import stats

from compressl.randomness import key
from compressl.settings.views import ViewRecipe
from compressl.views import ViewParameters, draw
from compressl.views.color import IDENTITY, ORDERS

N = 3000
FULL = ViewRecipe(jitter=1.0, brightness=0.8, contrast=0.4, saturation=0.2, hue=0.1, blur=1.0, solarize=0.2)


def many(recipe: ViewRecipe, height: int, width: int, n: int = N, stream: int = 3) -> ViewParameters:
    return draw(recipe, torch.tensor([[height, width]]).expand(n, 2), torch.arange(n), key("view", stream))


@pytest.mark.parametrize(("height", "width"), [(224, 224), (100, 300), (600, 90), (32, 32)])
def test_boxes(torchvision: ModuleType, height: int, width: int) -> None:
    torch.manual_seed(0)
    image, crop = torch.empty(3, height, width), torchvision.transforms.RandomResizedCrop.get_params
    theirs = torch.tensor([crop(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(N)]).double()
    ours = many(ViewRecipe(), height, width).boxes.double()
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 2:] >= 1).all()
    assert (ours[:, :2] + ours[:, 2:] <= torch.tensor([height, width])).all()
    seen = [lambda b: b[:, 0], lambda b: b[:, 1], lambda b: b[:, 2], lambda b: b[:, 3]]
    seen += [lambda b: b[:, 2] * b[:, 3], lambda b: b[:, 3] / b[:, 2], lambda b: b[:, 0] + b[:, 2] / 2]
    for quantity in seen:
        assert stats.ks_2samp(quantity(ours).numpy(), quantity(theirs).numpy()).pvalue > 1e-3


def test_boxes_would_notice_another_law() -> None:
    """The test above has the power to see a slightly smaller range of areas."""
    area = many(ViewRecipe(), 224, 224).boxes[:, 2:].prod(1)
    other = many(ViewRecipe(min_scale=0.14), 224, 224, stream=4).boxes[:, 2:].prod(1)
    assert stats.ks_2samp(area.numpy(), other.numpy()).pvalue < 1e-3


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 4000), (4000, 1), (2, 2000), (2000, 2), (2, 2)])
def test_fallback_equals_torchvision(torchvision: ModuleType, height: int, width: int) -> None:
    boxes = many(ViewRecipe(), height, width, 200).boxes
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] >= 1).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= torch.tensor([height, width])).all()
    if max(height, width) / min(height, width) > 600:  # no attempt fits: always the central fallback
        torch.manual_seed(0)
        crop = torchvision.transforms.RandomResizedCrop.get_params
        theirs = crop(torch.empty(3, height, width), [0.08, 1.0], [3 / 4, 4 / 3])
        assert boxes.unique(dim=0).tolist() == [list(theirs)]


def test_jitter(torchvision: ModuleType) -> None:
    torch.manual_seed(0)
    spans = ([0.2, 1.8], [0.6, 1.4], [0.8, 1.2], [-0.1, 0.1])
    theirs = [torchvision.transforms.ColorJitter.get_params(*spans) for _ in range(N)]
    ours = many(FULL, 32, 32)
    for column in range(4):
        reference = [float(row[1 + column]) for row in theirs]
        assert stats.ks_2samp(ours.factors[:, column].numpy(), reference).pvalue > 1e-3
    counts = torch.bincount(ours.order, minlength=24)
    assert len(counts) == len(ORDERS) == len(set(ORDERS)) == 24
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert len(Counter(tuple(row[0].tolist()) for row in theirs)) == 24


def test_sigma(torchvision: ModuleType) -> None:
    torch.manual_seed(0)
    theirs = [torchvision.transforms.GaussianBlur.get_params(0.1, 2.0) for _ in range(N)]
    assert stats.ks_2samp(many(FULL, 32, 32).sigma.numpy(), theirs).pvalue > 1e-3


def test_probabilities() -> None:
    recipe = replace(FULL, flip=0.5, jitter=0.8, grayscale=0.2, blur=0.1, solarize=0.3)
    drawn = many(recipe, 32, 32, 10_000)
    jittered = (drawn.factors != torch.tensor(IDENTITY)).any(1)
    for happened, probability in (
        (drawn.flip, 0.5), (jittered, 0.8), (drawn.grayscale, 0.2), (drawn.sigma > 0, 0.1), (drawn.solarize, 0.3),
    ):  # fmt: skip
        assert stats.binomtest(int(happened.sum()), 10_000, probability).pvalue > 1e-3


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_never_and_always(probability: float) -> None:
    names = ("flip", "jitter", "grayscale", "blur", "solarize")
    drawn = many(replace(FULL, **dict.fromkeys(names, probability)), 32, 32, 500)
    jittered = (drawn.factors != torch.tensor(IDENTITY)).any(1)
    for happened in (drawn.flip, jittered, drawn.grayscale, drawn.sigma > 0, drawn.solarize):
        assert happened.float().mean() == probability


def test_everything_is_independent() -> None:
    """No two drawn numbers share a lane: Spearman correlations of independent columns are within 4 / sqrt(n)."""
    recipe = replace(FULL, flip=0.5, grayscale=0.5, blur=0.5, solarize=0.5)
    d = many(recipe, 5000, 5000, 4000)
    area, ratio = d.boxes[:, 2:].double().prod(1), d.boxes[:, 3] / d.boxes[:, 2]
    center = (d.boxes[:, :2] / (5000 - d.boxes[:, 2:] + 1)).unbind(1)
    columns = [area, ratio, *center, *d.factors.unbind(1), d.order, d.flip, d.grayscale, d.solarize, d.sigma]
    correlation = stats.spearmanr(torch.stack([c.double() for c in columns], 1).numpy()).statistic
    off = torch.as_tensor(correlation)[~torch.eye(len(columns), dtype=torch.bool)]
    assert off.abs().max() < 4 / 4000**0.5


def test_the_choice_to_jitter_or_blur_is_independent_too() -> None:
    d = many(replace(FULL, jitter=0.5, blur=0.5, grayscale=0.5, solarize=0.5), 5000, 5000, 4000)
    jittered, blurred = (d.factors != torch.tensor(IDENTITY)).any(1), d.sigma > 0
    columns = [jittered, blurred, d.order, d.flip, d.grayscale, d.solarize, d.boxes[:, 2]]
    correlation = stats.spearmanr(torch.stack([c.double() for c in columns], 1).numpy()).statistic
    off = torch.as_tensor(correlation)[~torch.eye(len(columns), dtype=torch.bool)]
    assert off.abs().max() < 4 / 4000**0.5
    for column in range(4):  # being chosen leaves the factors uniform
        assert stats.kstest(d.factors[jittered, column].numpy(), many(FULL, 9, 9).factors[:, column]).pvalue > 1e-3
    assert stats.kstest(d.sigma[blurred].numpy(), many(FULL, 9, 9).sigma).pvalue > 1e-3


def test_refusals() -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        draw(FULL, torch.tensor([[0, 5]]), torch.tensor([0]), 1)
    with pytest.raises(ValueError, match="geometry must be"):
        draw(FULL, torch.tensor([[5, 5]]), torch.tensor([0, 1]), 1)

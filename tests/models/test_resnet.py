"""Our ResNet is torchvision's and timm's, name by name and number by number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from compressl.models.encoders import import_timm
from compressl.models.resnet import DEPTHS, ResNet


def _randomize(module: nn.Module) -> None:
    """Norms away from their initial zeros and ones, so that every weight matters."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if ("bn" in name or "downsample.1" in name) and value.is_floating_point():
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))


@pytest.mark.parametrize("depth", list(DEPTHS))
def test_keys_equal_torchvisions_and_load_strictly_both_ways(depth: str, torchvision_models: Any) -> None:
    ours, theirs = ResNet(depth), getattr(torchvision_models, depth)()
    theirs.fc = nn.Identity()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)


@pytest.mark.parametrize("depth", ["resnet18", "resnet50"])
def test_features_equal_torchvisions(depth: str, torchvision_models: Any) -> None:
    ours, theirs = ResNet(depth), getattr(torchvision_models, depth)()
    theirs.fc = nn.Identity()
    _randomize(ours)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("depth", ["resnet34", "resnet50"])
def test_weights_move_to_timm_and_back(depth: str) -> None:
    pytest.importorskip("tqdm")
    try:
        timm = import_timm()
    except Exception as error:
        pytest.skip(f"timm cannot be imported here: {error}")
    ours, theirs = ResNet(depth), timm.create_model(depth, num_classes=0)
    _randomize(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_residual_branches_start_at_zero() -> None:
    for depth, last in (("resnet18", "bn2"), ("resnet50", "bn3")):
        state = ResNet(depth, width=0.25).state_dict()
        assert all(bool((v == 0).all()) for k, v in state.items() if k.endswith(f"{last}.weight"))
        plain = ResNet(depth, width=0.25, zero_init=False).state_dict()
        assert all(bool((v == 1).all()) for k, v in plain.items() if k.endswith(f"{last}.weight"))


def test_width_scales_every_stage() -> None:
    assert [ResNet("resnet50", width=w).num_features for w in (0.5, 1, 2)] == [1024, 2048, 4096]
    assert ResNet("resnet18", width=2).layer4[1].conv2.weight.shape == (1024, 1024, 3, 3)  # type: ignore[union-attr,index]


def test_small_stem_keeps_the_resolution() -> None:
    """32 px leave the last stage at 4 x 4 with the small stem and at 1 x 1 with the other."""
    x, sides = torch.zeros(1, 3, 32, 32), {}
    for small in (True, False):
        encoder = ResNet("resnet18", width=0.125, small_stem=small)
        encoder.get_submodule("layer4").register_forward_hook(lambda m, i, o, s=small: sides.update({s: o.shape[-1]}))
        encoder.eval()(x)
    assert sides == {True: 4, False: 1}

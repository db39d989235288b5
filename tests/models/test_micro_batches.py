"""A batch in micro-batches has the gradient of one graph, in the memory of a part."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small import small_settings
from torch import Tensor, nn

from compressl.errors import UsageError
from compressl.methods import METHODS, Method, create_method
from compressl.models import chunked
from compressl.randomness import generator
from compressl.settings.methods import METHODS as SETTINGS

IMAGES, PARTS, FEATURES = 16, 4, 8
CASES = [(name, 0) for name in METHODS] + [(name, 2) for name in METHODS if SETTINGS[name].multi_crop]
Change = Callable[[nn.Module], nn.Module]


class OneGraph(nn.Module):
    """What micro-batches stand for: each on its own through the encoder, all of them kept."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        parts = [self.encoder(images[i::PARTS]) for i in range(PARTS)]
        return torch.stack(parts, dim=1).flatten(0, 1)


def _parts(encoder: nn.Module) -> nn.Module:
    return chunked(encoder, PARTS)


def _encoder(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    first = nn.Conv2d(3, FEATURES, 3)
    last = nn.Conv2d(FEATURES, FEATURES, 3)
    return nn.Sequential(first, *middle, nn.GELU(), last, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _views(small: int, dtype: torch.dtype) -> list[Tensor]:
    pixels = generator("pixels", 0)
    image = torch.randn(IMAGES, 3, 8, 8, generator=pixels)
    image += 6 * torch.randn(
        IMAGES, 3, 1, 1, generator=pixels
    )  # images that differ leave less to rounding in the heads
    sides = [8, 8, *[6] * small]
    return [(image[..., :s, :s] + 0.3 * torch.randn(IMAGES, 3, s, s, generator=pixels)).to(dtype) for s in sides]


def _step(name: str, small: int, encoder: nn.Module, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Method]:
    method = create_method(small_settings(name), encoder, FEATURES).to(dtype).train()
    method.before_step(0.5)
    torch.manual_seed(1)
    loss, _ = method(_views(small, dtype), generator("noise", 0))
    loss.backward()
    return loss.detach(), method


def _gradient(module: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(("name", "small"), CASES)
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_the_gradient_is_that_of_the_whole_batch(name: str, small: int, dtype: torch.dtype, rounding: float) -> None:
    loss, method = _step(name, small, _parts(_encoder()), dtype)
    whole_loss, whole = _step(name, small, _encoder(), dtype)
    assert abs(float(loss / whole_loss) - 1) < rounding
    assert _distance(_gradient(method), _gradient(whole)) < rounding
    assert _distance(_gradient(method.encoder), _gradient(whole.encoder)) < rounding


@pytest.mark.parametrize(("name", "small"), CASES)
def test_batch_norm_is_over_a_micro_batch_and_moves_once(name: str, small: int) -> None:
    """Slow copies included: all buffers end as those of one forward pass for each micro-batch."""
    _, method = _step(name, small, _parts(_encoder(nn.BatchNorm2d(FEATURES))))
    _, reference = _step(name, small, OneGraph(_encoder(nn.BatchNorm2d(FEATURES))))
    _, whole = _step(name, small, _encoder(nn.BatchNorm2d(FEATURES)))
    assert _distance(_gradient(method), _gradient(reference)) < 1e-12
    assert _distance(_gradient(method), _gradient(whole)) > 1e-4
    buffers, expected = list(method.buffers()), list(reference.buffers())
    assert len(buffers) == len(expected)
    for buffer, other in zip(buffers, expected, strict=True):
        torch.testing.assert_close(buffer, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Dropout(0.5),
        lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(FEATURES, FEATURES, 1)),  # has its own state
    ],
    ids=["dropout", "spectral norm"],
)
def test_both_passes_draw_and_remember_alike(layer: Callable[[], nn.Module]) -> None:
    """Two encoders that pass before anything is back-propagated, as in methods that take their views one by one."""
    encoder = _encoder(layer())
    _, reference = _step("byol", 0, OneGraph(copy.deepcopy(encoder)))
    drawn = torch.rand(3)
    _, method = _step("byol", 0, _parts(encoder))
    assert torch.equal(drawn, torch.rand(3))  # random numbers go on as if there had been one pass
    assert _distance(_gradient(method), _gradient(reference)) < 1e-12
    for buffer, other in zip(method.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(buffer, other, rtol=1e-10, atol=1e-10)


def test_autocast_holds_in_both_passes() -> None:
    gradients = []
    for change in (_parts, OneGraph):
        seen: list[torch.dtype] = []
        encoder = _encoder(nn.BatchNorm2d(FEATURES))
        encoder[-1].register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output.dtype))
        encoder = change(encoder)
        with torch.autocast("cpu", torch.bfloat16):
            encoder(torch.cat(_views(0, torch.float32))).float().square().sum().backward()  # in the context, for once
        assert set(seen) == {torch.bfloat16}
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in encoder.parameters())
        gradients.append(_gradient(encoder))
    assert _distance(*gradients) < 1e-2


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_layouts(layout: torch.memory_format) -> None:
    images = torch.cat(_views(0, torch.float64)).contiguous(memory_format=layout)
    gradients = []
    for change in (_parts, OneGraph):
        encoder = change(_encoder(nn.BatchNorm2d(FEATURES)).double()).to(memory_format=layout)  # type: ignore[call-overload]
        encoder(images).square().sum().backward()
        gradients.append(_gradient(encoder))
    assert _distance(*gradients) < 1e-12


class Own(nn.Module):
    """With a forward of its own: torch compiles no nn.Sequential."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.encoder(images) * 1.0
        return out


def test_a_compiled_encoder() -> None:
    """Crops of two sizes, so that it is compiled again between the passes."""
    gradients, compiled = [], []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        compiled.append(inputs)
        return graph.forward

    torch._dynamo.reset()
    for change in (_parts, OneGraph):
        encoder: nn.Module = Own(_encoder(nn.BatchNorm2d(FEATURES)).double())
        if change is OneGraph:
            encoder = OneGraph(encoder)
        else:
            _parts(encoder).compile(backend=backend)
        views = _views(2, torch.float64)
        features = [encoder(torch.cat(group)) for group in (views[:2], views[2:])]
        torch.cat(features).square().sum().backward()
        gradients.append(_gradient(encoder))
    assert compiled
    assert _distance(*gradients) < 1e-12


def test_weights_that_are_frozen_or_unused_get_no_gradient() -> None:
    encoder = _encoder()
    encoder[0].requires_grad_(False)
    encoder.register_parameter("unused", nn.Parameter(torch.ones(2)))
    _parts(encoder)(_views(0, torch.float32)[0]).sum().backward()
    assert {n for n, p in encoder.named_parameters() if p.grad is not None} == {"2.weight", "2.bias"}


class Saved:
    """How many numbers a graph holds at a time, at most."""

    now, peak = 0, 0

    def __init__(self) -> None:
        self.hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: _Held(self, x), lambda held: held.tensor)


class _Held:
    def __init__(self, saved: Saved, tensor: Tensor) -> None:
        self.saved, self.tensor = saved, tensor
        saved.now += tensor.numel()
        saved.peak = max(saved.peak, saved.now)

    def __del__(self) -> None:
        self.saved.now -= self.tensor.numel()


def test_the_graph_is_that_of_one_micro_batch_at_a_time() -> None:
    peaks = {}
    for parts in (1, 2, 16):
        layers: list[nn.Module] = [layer for _ in range(8) for layer in (nn.Linear(12, 12), nn.Tanh())]
        encoder, saved = chunked(nn.Sequential(*layers), parts), Saved()
        images = torch.randn(1024, 12)
        weights = sum(p.numel() for p in encoder.parameters())
        with saved.hooks:
            encoder(images).square().sum().backward()
        assert saved.now == 0
        peaks[parts] = saved.peak
        # the images, the features of the whole batch, the weights twice, and what one micro-batch passes through
        rows = len(images) // parts
        assert parts == 1 or saved.peak <= 2 * images.numel() + 2 * weights + 2 * len(layers) * rows * 12
    assert peaks[16] < peaks[2] / 2 < peaks[1] / 3


def test_evaluation_and_names_are_untouched_and_copies_are_chunked() -> None:
    plain, encoder = _encoder(nn.BatchNorm2d(FEATURES)), _parts(_encoder(nn.BatchNorm2d(FEATURES)))
    assert list(plain.state_dict()) == list(encoder.state_dict())
    assert repr(plain) == repr(encoder)
    assert isinstance(encoder, nn.Sequential)
    images = torch.randn(7, 3, 8, 8)  # no multiple of anything
    assert torch.equal(plain.eval()(images), encoder.eval()(images))
    rows: list[int] = []
    slow = copy.deepcopy(encoder).train()
    slow.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    with torch.no_grad():
        slow(torch.randn(IMAGES, 3, 8, 8))
    assert rows == [IMAGES // PARTS] * PARTS
    assert type(chunked(plain, 1)) is nn.Sequential


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: chunked(_encoder(), 0), "no 0 micro-batches"),
        (lambda: _parts(_encoder())(torch.ones(6, 3, 8, 8)), "6 images does not consist of 4"),
        (lambda: _parts(_encoder())(torch.ones(8, 3, 8, 8, requires_grad=True)), "No gradient of the images"),
    ],
)
def test_what_cannot_be_is_a_sentence(call: Callable[[], Any], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        call()

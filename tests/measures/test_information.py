"""Bounds of information where the information is known."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from compressl.errors import DataError, UsageError
from compressl.measures import information
from compressl.measures.channels import BernoulliChannel, GaussianChannel, VonMisesFisherChannel
from compressl.measures.information import Bounds, densities, mutual_information, split_information, superfluous_at
from compressl.objectives.von_mises_fisher import VonMisesFisher


def _noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _bracket(bounds: Bounds, truth: float, within: float | None = None) -> None:
    """The truth lies between the bounds, give or take four standard errors; ``within`` bounds their distance."""
    lower, upper = float(bounds.lower.mean()), float(bounds.upper.mean())
    error = 4 * max(bounds.standard_error)
    assert lower <= truth + error, (lower, truth)
    assert upper >= truth - error, (upper, truth)
    assert lower <= bounds.ceiling + 1e-5
    if within is not None:
        assert upper - lower < within
        assert min(abs(lower - truth), abs(upper - truth)) < error + within


@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("ratio", [0.3, 2.0])
def test_gaussian_signal_and_noise(dim: int, ratio: float) -> None:
    """I = d/2 log(1 + s^2 / sigma^2)."""
    x = ratio * torch.randn(2000, dim, generator=_noise())
    bounds = mutual_information(GaussianChannel(x, torch.ones_like(x)), _noise(1))
    _bracket(bounds, dim / 2 * math.log1p(ratio**2), within=0.1)


@pytest.mark.parametrize(("dim", "kappa"), [(2, 5.0), (3, 20.0), (16, 8.0)])
def test_directions_that_are_uniform(dim: int, kappa: float) -> None:
    """The marginal is uniform too: I = H(uniform) - H(vMF), exactly."""
    mu = F.normalize(torch.randn(2000, dim, generator=_noise()), dim=1)
    truth = VonMisesFisher(dim, 0.0).entropy - VonMisesFisher(dim, kappa).entropy
    _bracket(mutual_information(VonMisesFisherChannel(mu, kappa), _noise(1)), truth, within=0.1)


def test_a_few_directions_on_the_circle() -> None:
    """Three directions, neither far apart nor equally frequent; the truth by quadrature."""
    angles, weights = torch.tensor([0.0, 0.7, 2.5]).double(), torch.tensor([0.5, 0.3, 0.2]).double()
    mu = torch.stack([angles.cos(), angles.sin()], 1)
    theta = torch.arange(20_000).double() * 2 * math.pi / 20_000  # the trapezoid rule is exact here
    e = VonMisesFisherChannel(mu, 6.0).log_density(torch.stack([theta.cos(), theta.sin()], 1)).exp()  # [T, 3]
    p = e @ weights
    truth = float((weights * (torch.xlogy(e, e) - torch.xlogy(e, p[:, None]))).sum() * 2 * math.pi / 20_000)
    rows = torch.multinomial(weights, 3000, replacement=True, generator=_noise())
    _bracket(mutual_information(VonMisesFisherChannel(mu[rows].float(), 6.0), _noise(1)), truth, within=0.02)


def test_bits() -> None:
    """Three images with four bits each; the truth by going through all codes."""
    logits = torch.tensor([[2.0, -1.0, 0.0, 3.0], [-2.0, -1.0, 1.0, 0.5], [0.0, 1.0, -3.0, -1.0]])
    codes = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)))
    p = BernoulliChannel(logits).log_density(codes).double().exp()  # [16, 3]
    truth = float((p * (p / p.mean(1, keepdim=True)).log()).sum(0).mean())
    rows = torch.randint(3, (3000,), generator=_noise())
    _bracket(mutual_information(BernoulliChannel(logits[rows]), _noise(1)), truth, within=0.02)


def _hierarchy(images: int, views: int, image: float = 2.0, view: float = 0.5, noise: float = 1.0) -> GaussianChannel:
    """X ~ N(0, image^2 I_2), V = X + N(0, view^2 I_2), Z = V + N(0, noise^2 I_2)."""
    random = _noise(images + views)
    x = image * torch.randn(images, 1, 2, generator=random) + view * torch.randn(images, views, 2, generator=random)
    return GaussianChannel(x.flatten(0, 1), torch.full((images * views, 2), noise))


@pytest.mark.parametrize("views", [2, 8])
@pytest.mark.parametrize("view", [0.2, 0.5, 1.5])
def test_image_and_view(views: int, view: float) -> None:
    """d/2 log of ratios of variances, d = 2."""
    split = split_information(_hierarchy(600, views, view=view), views, _noise(3))
    within = 0.2 if views == 8 and view < 1 else None
    _bracket(split.total, math.log((4 + view**2 + 1) / 1), within=0.1)
    _bracket(split.kept, math.log((4 + view**2 + 1) / (view**2 + 1)), within)
    _bracket(split.superfluous, math.log((view**2 + 1) / 1), within)


def test_more_images_and_more_views_tighten() -> None:
    def gaps(images: int, views: int) -> tuple[float, ...]:
        split = split_information(_hierarchy(images, views, view=1.0), views, _noise(3))
        return tuple(float((b.upper - b.lower).mean()) for b in (split.total, split.kept, split.superfluous))

    few, images, views = gaps(20, 4), gaps(500, 4), gaps(500, 16)
    assert images[0] < 0.5 * few[0]
    assert views[1] < 0.5 * images[1]
    assert views[2] < 0.5 * images[2]


def test_the_parts_fit_the_whole() -> None:
    """Upper kept = upper total - lower superfluous; lower kept is no worse than the other difference."""
    split = split_information(_hierarchy(100, 4), 4, _noise())
    torch.testing.assert_close(split.kept.upper, split.total.upper - split.superfluous.lower)
    assert float((split.kept.lower - (split.total.lower - split.superfluous.upper)).mean()) > 0
    one = mutual_information(_hierarchy(100, 4), _noise())
    torch.testing.assert_close(split.total.lower.mean(), one.lower.mean(), rtol=0.05, atol=0.0)


def test_by_hand() -> None:
    """The four numbers of a code, one image and view at a time."""
    channel, views = _hierarchy(4, 3), 3
    found = densities(channel, views, _noise(1))
    e = channel.log_density(channel.sample(_noise(1))).exp().view(4, 3, 4, 3)
    for i, a in itertools.product(range(4), range(3)):
        rest = [b for b in range(3) if b != a]
        others = [j for j in range(4) if j != i]
        expected = (e[i, a, i, a], e[i, a, i].mean(), e[i, a, i, rest].mean(), e[i, a, others].mean())
        numbers = (found.own, found.same, found.siblings, found.others)
        torch.testing.assert_close(torch.stack([x[i, a] for x in numbers]), torch.stack(expected).log())


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = _hierarchy(50, 4)
    whole = densities(channel, 4, _noise(1))
    monkeypatch.setattr(information, "CHUNK", 3 * 4 * 200)  # three images at a time
    parts = densities(channel, 4, _noise(1))
    for name in ("own", "same", "siblings", "others"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


def test_ceilings() -> None:
    """Views that are all told apart: each lower bound shows as much as it can."""
    far = VonMisesFisherChannel(torch.eye(40), 1e4)
    split = split_information(far, 4, _noise())
    assert split.total.saturated
    assert split.superfluous.saturated
    assert float(split.superfluous.lower.mean()) == pytest.approx(math.log(4), abs=1e-4)
    assert float(split.total.lower.mean()) == pytest.approx(math.log(40), abs=1e-4)
    assert float(mutual_information(far, _noise()).lower.mean()) == pytest.approx(math.log(40), abs=1e-4)
    alike = VonMisesFisherChannel(torch.eye(10, 40).repeat_interleave(4, 0), 1e4)
    split = split_information(alike, 4, _noise())
    assert split.kept.saturated
    assert not split.superfluous.saturated
    assert float(split.kept.lower.mean()) == pytest.approx(math.log(10), abs=1e-4)


@given(st.permutations(range(6)), st.integers(2, 4))
def test_the_order_of_images_and_views_is_nothing(order: list[int], views: int) -> None:
    """With the codes carried along."""
    channel = _Fixed(_hierarchy(6, views))
    rows = (torch.tensor(order)[:, None] * views + torch.arange(views).flip(0)).flatten()
    first, second = split_information(channel, views), split_information(channel[rows], views)
    for part in ("total", "kept", "superfluous"):
        torch.testing.assert_close(getattr(second, part).lower, getattr(first, part).lower[order])
        torch.testing.assert_close(getattr(second, part).upper, getattr(first, part).upper[order])


class _Fixed(GaussianChannel):
    """A channel whose codes are a function of its parameters."""

    def __init__(self, channel: GaussianChannel) -> None:
        super().__init__(channel.mean, channel.scale)

    def __getitem__(self, rows: Tensor | slice) -> _Fixed:
        return _Fixed(super().__getitem__(rows))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.mean + (1000 * self.mean).sin()


def test_nothing_said_is_nothing_found() -> None:
    split = split_information(VonMisesFisherChannel(F.normalize(torch.randn(80, 5, generator=_noise())), 0.0), 4)
    for bounds in (split.total, split.kept, split.superfluous):
        torch.testing.assert_close(bounds.lower, torch.zeros(20), rtol=0, atol=1e-5)
        torch.testing.assert_close(bounds.upper, torch.zeros(20), rtol=0, atol=1e-5)


def test_twice_the_same() -> None:
    first, again = (split_information(_hierarchy(30, 4), 4, _noise(7)) for _ in range(2))
    assert torch.equal(first.kept.lower, again.kept.lower)


def test_the_price_of_what_is_kept() -> None:
    assert superfluous_at(1.0, [2.0, 4.0], [0.5, 1.5]) == pytest.approx(0.25)
    assert superfluous_at(4.0, [2.0, 4.0], [0.5, 1.5]) == pytest.approx(1.5)
    assert superfluous_at(1.0, [-0.5, -2.0], [0.5, 1.5]) is None
    assert superfluous_at(1.0, [-1.0, 3.0], [0.0, 2.0]) == pytest.approx(1.0)


def test_too_little_is_a_sentence() -> None:
    with pytest.raises(DataError, match="one image only"):
        mutual_information(_hierarchy(1, 1))
    with pytest.raises(UsageError, match="1 view of each"):
        split_information(_hierarchy(10, 1), 1)
    with pytest.raises(UsageError, match="not 3 views"):
        split_information(_hierarchy(5, 2), 3)

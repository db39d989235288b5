"""Linear probe: multinomial logistic regression on frozen features, to its optimum, many weight decays at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from compressl.errors import DataError
from compressl.measures.few_labels import rank_in_class

HELD_OUT = 5  # one image in so many of each class is held out for the choice of the weight decay
MEMORY = 20  # steps that L-BFGS remembers
DECREMENT = 1e-8  # nats: the fit ends once Newton's method would gain no more than about this
AT_ONCE = 2**25  # logits at a time (images x weight decays x classes): bounds the memory
WIDEST = 2048  # features up to which an eigendecomposition costs less than the steps that it saves
TRIALS, GROWTH = 20, 8.0  # of a line search: lengths tried, and how much longer the next may be

Pair = tuple[Tensor, Tensor, Tensor]  # of L-BFGS: a step s, the change of the gradient y, 1 / <s, y>
Spectrum = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class LinearProbe:
    """Standardised features x -> logits (x - mean) / std W + b."""

    mean: Tensor  # [F]
    std: Tensor  # [F]
    weight: Tensor  # [F, C]
    bias: Tensor  # [C]
    weight_decay: float

    def logits(self, features: Tensor) -> Tensor:
        """[N, F] -> [N, C]."""
        return (features.float() - self.mean) / self.std @ self.weight + self.bias

    def predict(self, features: Tensor) -> Tensor:
        """[N, F] -> classes int64 [N]."""
        return self.logits(features).argmax(1)


def standardise(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features less their mean, in units of their standard deviation (N - 1), each column on its own.

    Args:
        features: [N, F]. A constant column becomes zero.

    Returns:
        float32 [N, F], mean [F], standard deviation [F] (one where the column is constant).

    Raises:
        DataError: a value is not finite, or there are fewer than two images.

    >>> x, mean, std = standardise(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    >>> x[:, 1].tolist(), mean.tolist(), [round(s, 3) for s in std.tolist()]
    ([0.0, 0.0], [2.0, 5.0], [1.414, 1.0])
    """
    if len(features) < 2:
        raise DataError(f"A linear classifier needs two images at least; there are {len(features)}.", "Give more.")
    mean = features.mean(0, dtype=torch.float64)
    x = features.float() - mean.float()
    std = (x.square().mean(0, dtype=torch.float64) * len(x) / (len(x) - 1)).sqrt()
    if not bool(torch.isfinite(std).all()):
        raise DataError("Some features are not finite.", "The training diverged; pretrain again.")
    constant = std <= 1e-6 * mean.abs()  # what rounding leaves of a constant
    std[constant] = 1.0
    x[:, constant] = 0.0
    return x.div_(std.float()), mean.float(), std.float()


def fit(
    features: Tensor,
    labels: Tensor,
    classes: int,
    weight_decay: float,
    start: LinearProbe | None = None,
    steps: int = 300,
) -> LinearProbe:
    """The minimum of mean cross-entropy (nats) + weight_decay / 2 ||W||^2; the bias is not penalised.

    Args:
        features: [N, F]; standardised by their own mean and deviation.
        labels: int64 [N].
        start: a probe to start from.
        steps: of L-BFGS, at most.

    Raises:
        DataError: see :func:`standardise`.
    """
    return fit_all(features, labels, classes, [weight_decay], start, steps)[0]


def fit_all(
    features: Tensor,
    labels: Tensor,
    classes: int,
    weight_decays: Sequence[float],
    start: LinearProbe | None = None,
    steps: int = 300,
) -> list[LinearProbe]:
    """:func:`fit` for several weight decays, side by side as the rows of one matrix of weights [W C, F].

    >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    >>> weak, strong = fit_all(x, torch.tensor([0, 0, 1, 1]), 2, (1e-3, 1.0))
    >>> weak.predict(x).tolist(), bool(weak.weight.norm() > strong.weight.norm())
    ([0, 0, 1, 1], True)
    """
    x, mean, std = standardise(features)
    x = torch.cat([x, x.new_ones(len(x), 1)], 1)  # the last weight of each class is its bias
    first = x.new_zeros(1, classes, x.shape[1])
    if start is not None:
        first = torch.cat([start.weight.T, start.bias[:, None]], 1)[None]
    spectrum = _spectrum(x)
    probes = []
    at_once = max(1, AT_ONCE // (len(x) * classes))
    for group in torch.split(torch.tensor(list(weight_decays), device=x.device), at_once):
        theta = _minimise(x, labels, group, first.expand(len(group), -1, -1), spectrum, steps)
        probes += [(each[:, :-1].T.contiguous(), each[:, -1].clone()) for each in theta]
    return [
        LinearProbe(mean, std, weight, bias, float(weight_decay))
        for (weight, bias), weight_decay in zip(probes, weight_decays, strict=True)
    ]


def fit_best(
    features: Tensor, labels: Tensor, classes: int, weight_decays: Sequence[float], seed: int = 0
) -> LinearProbe:
    """The probe with the weight decay that does best on a held-out fifth of these images, fitted again on all.

    The fifth is drawn class by class; of equals the largest weight decay is taken.

    Args:
        features: *training* features [N, F]; the test set has no part in the choice.
        labels: int64 [N].

    Raises:
        DataError: see :func:`standardise`; or every class has fewer than three images.
    """
    held, kept = held_out(labels, seed)
    decays = sorted(set(weight_decays), reverse=True)
    probes = fit_all(features[kept], labels[kept], classes, decays, steps=100)
    accuracies = [float((probe.predict(features[held]) == labels[held]).float().mean()) for probe in probes]
    best = probes[accuracies.index(max(accuracies))]
    return fit(features, labels, classes, best.weight_decay, best)


def held_out(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of a fifth of the images of each class, rounded, and of the others: int64, in rising order.

    Raises:
        DataError: every class has fewer than three images, so that nothing can be held out.

    >>> held, kept = held_out(torch.arange(20) % 2, seed=0)
    >>> (held % 2).tolist(), len(kept)
    ([0, 1, 0, 1], 16)
    """
    rank, sizes = rank_in_class(labels, "held-out fifth", seed)
    chosen = rank < (sizes + HELD_OUT // 2) // HELD_OUT
    if not bool(chosen.any()):
        raise DataError(
            "No class has the three training images that a choice on held-out images needs.", "Give more images."
        )
    return chosen.nonzero()[:, 0], (~chosen).nonzero()[:, 0]


@torch.no_grad()
def _minimise(
    x: Tensor, labels: Tensor, decays: Tensor, start: Tensor, spectrum: Spectrum | None, steps: int
) -> Tensor:
    """L-BFGS (Liu and Nocedal 1989) on W problems at once: weights [W, C, F + 1].

    Logits are linear in the weights: a step costs one product for the logits of its direction and one for the
    gradient, and a line search none.
    """
    theta = start.clone()
    penalty = decays[:, None, None].repeat(1, 1, x.shape[1])  # [W, 1, F + 1]
    penalty[..., -1] = 0.0
    target = F.one_hot(labels, theta.shape[1]).T.to(x.dtype).contiguous()  # [C, N]
    logits = _product(theta, x.T)  # [W, C, N]: images last, so that sums over classes run along whole vectors
    gradient = _product(logits.softmax(1).sub_(target), x) / len(x) + penalty * theta
    pairs: list[Pair] = []
    for _ in range(steps):
        direction = -_inverse_hessian(gradient, pairs, decays, spectrum)
        slope = _dot(gradient, direction)  # [W]: minus twice what a step of Newton's would gain
        active = slope < -2 * DECREMENT
        if not bool(active.any()):
            break
        direction = direction * active[:, None, None]  # who has arrived stays
        change = _product(direction, x.T)
        along = _dot(penalty * theta, direction), _dot(penalty * direction, direction)
        length, p = _line_search(logits, change, target, slope * active, *along)
        step = length[:, None, None] * direction
        theta = theta + step
        logits += change.mul_(length[:, None, None])
        before, gradient = gradient, _product(p.sub_(target), x) / len(x) + penalty * theta
        difference = gradient - before
        curvature = _dot(step, difference)
        pairs = [*pairs[1 - MEMORY :], (step, difference, torch.where(curvature > 0, 1 / curvature, 0.0))]
    return theta


def _inverse_hessian(gradient: Tensor, pairs: list[Pair], decays: Tensor, spectrum: Spectrum | None) -> Tensor:
    """The two loops of L-BFGS: its estimate of the inverse Hessian times the gradient, [W, C, F + 1]."""
    q, factors = gradient, []
    for step, difference, inverse in reversed(pairs):
        factors.append((inverse * _dot(step, q))[:, None, None])
        q = q - factors[-1] * difference
    r = _precondition(q, decays, spectrum)
    if pairs:
        _, difference, inverse = pairs[-1]
        size = _dot(difference, _precondition(difference, decays, spectrum)) * inverse
        r = r / torch.where(size > 0, size, 1.0)[:, None, None]
    for (step, difference, inverse), factor in zip(pairs, reversed(factors), strict=True):
        r = r + (factor - (inverse * _dot(difference, r))[:, None, None]) * step
    return r


def _spectrum(x: Tensor) -> Spectrum | None:
    """Eigenvalues [F + 1] and eigenvectors of the second moment of the features, or None where too wide."""
    if x.shape[1] > WIDEST + 1:
        return None
    values, vectors = torch.linalg.eigh((x.T @ x / len(x)).double())
    return values.clamp_min(1e-6).float(), vectors.float()


def _precondition(q: Tensor, decays: Tensor, spectrum: Spectrum | None) -> Tensor:
    """The inverse of an upper bound of the Hessian: half of the second moment, plus the weight decay (Boehning 1992,
    "Multinomial logistic regression algorithm", for the half). The fit needs several times fewer steps with it."""
    if spectrum is None:
        return q
    values, vectors = spectrum
    return _product(_product(q, vectors) / (values / 2 + decays[:, None, None]), vectors.T)


def _line_search(
    logits: Tensor, change: Tensor, target: Tensor, slope: Tensor, linear: Tensor, square: Tensor
) -> tuple[Tensor, Tensor]:
    """Lengths [W] at which the slope along the direction has fallen to half or less, by Newton's method in a bracket;
    and the probabilities there, [W, C, N].

    The loss is convex, so its slope rises along the line and one sign change brackets the minimum.

    Args:
        slope: of the loss at length zero, [W].
        linear, square: slope and second derivative that the weight decay adds, [W].
    """
    wanted, own = slope.abs() / 2, (target * change).sum(1).mean(1)
    length, low, high = torch.ones_like(slope), torch.zeros_like(slope), torch.full_like(slope, torch.inf)
    for _ in range(TRIALS):
        p = torch.addcmul(logits, length[:, None, None], change).softmax(1)
        mean = (p * change).sum(1)  # [W, N]
        slope = mean.mean(1) - own + linear + length * square
        arrived = slope.abs() <= wanted
        if bool(arrived.all()):
            break
        bend = ((p * change.square()).sum(1) - mean.square()).mean(1) + square
        low, high = torch.where(slope < 0, length, low), torch.where(slope > 0, length, high)
        newton = length - slope / bend.clamp_min(1e-12)
        middle = torch.where(high.isfinite(), (low + high) / 2, GROWTH * length)
        inside = (newton > low) & (newton < high) & (newton < GROWTH * length)
        length = torch.where(arrived, length, torch.where(inside, newton, middle))
    return length, p


def _product(a: Tensor, b: Tensor) -> Tensor:
    """[W, C, K] with [K, M] -> [W, C, M]."""
    return (a.flatten(0, 1) @ b).view(*a.shape[:2], -1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of W problems, [W, C, F] twice -> [W]."""
    return (a * b).sum((1, 2))

"""Linear probe: multinomial logistic regression on frozen features, to its optimum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from compressl.randomness import generator


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


def fit(
    features: Tensor,
    labels: Tensor,
    classes: int,
    weight_decay: float,
    start: LinearProbe | None = None,
    steps: int = 300,
) -> LinearProbe:
    """Minimise mean cross-entropy + weight_decay / 2 ||W||^2 by L-BFGS; the bias is not penalised.

    Args:
        features: [N, F]; standardised by their own mean and deviation.
        labels: int64 [N].
        start: a probe to start from.
        steps: of L-BFGS, at most.
    """
    mean, std = features.float().mean(0), features.float().std(0)
    std = torch.where(std > 1e-6, std, torch.ones_like(std))  # a constant column stays at zero
    x = (features.float() - mean) / std
    weight = start.weight.clone() if start else x.new_zeros(x.shape[1], classes)
    bias = start.bias.clone() if start else x.new_zeros(classes)
    weight.requires_grad_(), bias.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=steps,
        history_size=20,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, labels) + weight_decay / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return LinearProbe(mean, std, weight.detach(), bias.detach(), weight_decay)


def fit_best(
    features: Tensor, labels: Tensor, classes: int, weight_decays: Sequence[float], seed: int = 0
) -> LinearProbe:
    """The probe with the weight decay that does best on a held-out fifth of these images, fitted again on all.

    Args:
        features: *training* features [N, F]; the test set has no part in the choice.
        labels: int64 [N].
    """
    order = torch.randperm(len(labels), generator=generator("linear probe split", seed)).to(labels.device)
    held, kept = order[: len(order) // 5], order[len(order) // 5 :]
    best: LinearProbe | None = None
    best_accuracy, probe = -1.0, None
    for weight_decay in sorted(set(weight_decays), reverse=True):  # from smooth to sharp, each from the last
        probe = fit(features[kept], labels[kept], classes, weight_decay, probe, steps=100)
        accuracy = float((probe.predict(features[held]) == labels[held]).float().mean())
        if accuracy > best_accuracy:
            best, best_accuracy = probe, accuracy
    assert best is not None  # there is at least one weight decay
    return fit(features, labels, classes, best.weight_decay, best)

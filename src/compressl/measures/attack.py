"""The worst image within a small distance: projected gradient ascent (Madry et al. 2018, "Towards Deep Learning
Models Resistant to Adversarial Attacks", section 2.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from compressl.errors import UsageError
from compressl.randomness import key, uniforms

Norm = Literal["linf", "l2"]
_TINY = 1e-12


def pgd(
    logits: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    norm: Norm = "linf",
    steps: int = 20,
    step_size: float | None = None,
    keys: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """Images at most ``epsilon`` away, in [0, 1], that the classifier finds hardest: float32 [B, 3, S, S].

    From a random point of the ball, x <- P(x + a d), d the direction of steepest ascent of the cross-entropy in the
    norm and P the projection to the ball and to [0, 1]. Of all the iterates, the clean image among them, each image
    keeps the one with the largest margin max_{j != y} z_j - z_y: it counts as robust only if none was misclassified.
    (The cross-entropy is softplus(m), m = log sum_{j != y} exp(z_j) - z_y. Its gradient has the direction of that of
    m, which does not vanish where the classifier is sure; so m is followed.)

    Args:
        logits: differentiable, from images [B, 3, S, S] to [B, C], each image on its own.
        images: in [0, 1].
        labels: true classes, int64 [B].
        epsilon: radius; of the largest change of a value (linf), or of the Euclidean norm of the change (l2). 0 gives
            the images back.
        steps: of ascent.
        step_size: a; 2.5 epsilon / steps by default, as usual.
        keys: int64 [B], which image each one is: the start depends on (seed, key) alone. By default, its place.
        seed: another seed is another start.

    Raises:
        UsageError: a negative epsilon, no step, or an unknown norm.

    >>> classifier = lambda x: x.flatten(1)[:, :2]
    >>> image = torch.tensor([0.6, 0.5, 0.0]).view(1, 3, 1, 1)
    >>> pgd(classifier, image, torch.tensor([0]), 0.1).flatten()[:2].tolist()
    [0.5, 0.6000000238418579]
    """
    if norm not in ("linf", "l2"):
        raise UsageError(f"The norm {norm!r} is not known.", "Choose linf or l2.")
    if not epsilon >= 0 or steps < 1:
        raise UsageError(f"An attack needs epsilon >= 0 and steps >= 1; they are {epsilon}, {steps}.")
    if epsilon == 0 or len(images) == 0:
        return images.clone()
    images = images.detach().float()
    keys = torch.arange(len(images)) if keys is None else keys
    step = 2.5 * epsilon / steps if step_size is None else step_size
    change = _start(images, norm, keys.to(images.device), seed) * epsilon
    best, best_margin = images.clone(), _margin(_apart(logits, images), labels)
    for n in range(steps + 1):
        attacked = (images + _project(change, epsilon, norm)).clamp(0, 1).requires_grad_(n < steps)
        with torch.set_grad_enabled(n < steps):
            scores = logits(attacked)
            ascended = _soft_margin(scores, labels).sum()
        margin = _margin(scores.detach(), labels)
        best = torch.where(_wide(margin > best_margin), attacked.detach(), best)
        best_margin = torch.maximum(margin, best_margin)
        if n < steps:
            (gradient,) = torch.autograd.grad(ascended, attacked)
            change = attacked.detach() - images + step * _direction(gradient, norm)
    return best


@torch.no_grad()
def _apart(logits: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return logits(images)


def _wide(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _length(x: Tensor) -> Tensor:
    return _wide(x.flatten(1).norm(dim=1))


def _margin(scores: Tensor, labels: Tensor) -> Tensor:
    """Largest other logit less that of the true class, [B]: above 0 where the classifier is wrong."""
    true = labels[:, None]
    others: Tensor = scores.scatter(1, true, float("-inf")).amax(1)
    margin: Tensor = others - scores.gather(1, true)[:, 0]
    return margin


def _soft_margin(scores: Tensor, labels: Tensor) -> Tensor:
    true = labels[:, None]
    others: Tensor = scores.scatter(1, true, float("-inf")).logsumexp(1)
    margin: Tensor = others - scores.gather(1, true)[:, 0]
    return margin


def _start(images: Tensor, norm: Norm, keys: Tensor, seed: int) -> Tensor:
    """Uniform in the unit ball, a point for each image."""
    d = images[0].numel()
    u = uniforms(key(f"attack {norm}", seed), keys, d + 1)
    if norm == "linf":
        return (2 * u[:, :d] - 1).view_as(images)
    direction: Tensor = torch.special.ndtri(u[:, :d].double() + 2.0**-25).float().view_as(images)
    return direction / _length(direction).clamp(min=_TINY) * _wide(u[:, d] ** (1 / d))


def _direction(gradient: Tensor, norm: Norm) -> Tensor:
    """The unit change along which a linear function with this gradient rises most."""
    return gradient.sign() if norm == "linf" else gradient / _length(gradient).clamp(min=_TINY)


def _project(change: Tensor, epsilon: float, norm: Norm) -> Tensor:
    if norm == "linf":
        return change.clamp(-epsilon, epsilon)
    return change * (epsilon / _length(change).clamp(min=epsilon))

"""Which tasks a representation solves: one class per image, random groupings, and where the risk comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from compressl.errors import DataError
from compressl.measures.geometry import check_views
from compressl.measures.intervals import Estimate
from compressl.measures.linear import LinearProbe, fit, held_out, standardise
from compressl.randomness import generator

EPOCHS, PATIENCE, BATCH, RATE = 100, 8, 128, 1e-3  # of the MLP instance probe: ours
RIDGE = 1e-6  # of standardised features, relative to the number of rows: for stability alone


@dataclass(frozen=True)
class InstanceProbe:
    """How well classifiers z -> image do on views that they have not seen."""

    right: Tensor
    """Share of the held-out views of each image that were told to be its own, [N]."""
    loss: Tensor
    """Mean of -log p(image | z) over them, nats [N]: in the mean over images an upper bound of H(M | Z)."""


def instance_probes(views: Tensor, hidden: int = 512, seed: int = 0) -> dict[str, InstanceProbe]:
    """Tell which image a view shows, by a linear probe and by an MLP of one hidden layer, on views not trained on.

    Of A views the first half trains, the next calibrates, the rest tests. The number of an image is then a maximal
    invariant M that a probe of this family reads off, or not.

    The linear probe is Bayes' rule of the two-covariance model z = m_i + e, m_i ~ N(m, Sigma_B), e ~ N(0, Sigma_W),
    whose logits are affine in z as all images have the same number of views: in closed form and, with few views of an
    image, ahead of logistic regression. One temperature is fitted on the calibrating view.

    The MLP adds V relu(U z + c) to these logits, starting from V = 0, and stops where the calibrating view's loss is
    least. So "mlp" less "linear" is what is there but not linearly readable, as far as this training finds it: a lower
    bound. Deterministic.

    Args:
        views: features [N, A, F] of A >= 4 views.

    Returns:
        "linear" and "mlp".

    Raises:
        DataError: fewer than four views, or two images; features that are not finite.

    Source: condition 1 of Dubois et al. 2022, arXiv:2209.06235, theorem 1, for what is asked; Ioffe 2006,
    "Probabilistic linear discriminant analysis", for the model; the procedure is ours.

    >>> z = torch.eye(4)[:, None].expand(4, 6, 4)
    >>> instance_probes(z)["linear"].right.tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    count = check_views(views).shape[1]
    if count < 4:
        raise DataError(f"There are {count} views of each image.", "An instance probe needs four: raise --views.")
    kept = count // 2
    z = _wide(check_views(views))
    _, mean, std = standardise(z[:, :kept].flatten(0, 1))
    z = (z - mean) / std
    logits = _bayes(z[:, :kept], z)  # [N, A, N]
    own = torch.arange(len(z), device=z.device)
    scales = torch.logspace(-4, 1, 101, dtype=z.dtype).tolist()
    logits *= min(scales, key=lambda scale: float(F.cross_entropy(scale * logits[:, kept], own)))
    z, logits = z.float(), logits.float()
    correction = _correction(z[:, : kept + 1], logits[:, : kept + 1], hidden, generator("instance probe", seed))
    with torch.no_grad():
        better = logits[:, kept + 1 :] + correction(z[:, kept + 1 :])
    return {"linear": _tested(logits[:, kept + 1 :]), "mlp": _tested(better)}


def _bayes(known: Tensor, z: Tensor) -> Tensor:
    """log p(z | image) up to a term of z alone, from known views [N, K, F] for views [N, A, F] -> [N, A, N]."""
    n, count, width = known.shape
    means = known.mean(1) - known.mean((0, 1))
    rest = (known - known.mean(1, keepdim=True)).flatten(0, 1)
    within = rest.T @ rest / (n * (count - 1)) + 1e-6 * torch.eye(width, dtype=z.dtype, device=z.device)  # Sigma_W
    between = means.T @ means / (n - 1) - within / count  # Sigma_B: the mean of K views varies too
    whiten = torch.linalg.inv(torch.linalg.cholesky(within))
    ratio, vectors = torch.linalg.eigh(whiten @ between @ whiten.T)  # Sigma_W = I, Sigma_B = diag(ratio)
    ratio = ratio.clamp_min(0)
    basis = whiten.T @ vectors  # [F, F]
    posterior = means @ basis * (ratio / (ratio + 1 / count))  # E[m_i | its known views]     [N, F]
    variance = 1 + ratio / (1 + count * ratio)  # of a new view given these     [F]
    x = (z - known.mean((0, 1))) @ basis / variance
    logits: Tensor = x @ posterior.T - (posterior.square() / variance).sum(1) / 2
    return logits


def _correction(z: Tensor, logits: Tensor, hidden: int, random: torch.Generator) -> Callable[[Tensor], Tensor]:
    """V relu(U z + c), trained on all views but the last, [N, K + 1, F], which says when to stop."""
    n, _, width = z.shape
    u = (torch.randn(width, hidden, generator=random) / width**0.5).to(z).requires_grad_()
    c, v = z.new_zeros(hidden).requires_grad_(), z.new_zeros(hidden, n).requires_grad_()

    def correction(x: Tensor) -> Tensor:
        added: Tensor = (x @ u + c).relu() @ v
        return added

    own = torch.arange(n, device=z.device)
    rows, given, names = z[:, :-1].flatten(0, 1), logits[:, :-1].flatten(0, 1), own.repeat_interleave(z.shape[1] - 1)
    optimizer = torch.optim.Adam([u, c, v], lr=RATE)
    best, least, best_epoch = [x.detach().clone() for x in (u, c, v)], float(F.cross_entropy(logits[:, -1], own)), 0
    for epoch in range(1, EPOCHS + 1):
        for chosen in torch.split(torch.randperm(len(rows), generator=random).to(z.device), BATCH):
            with torch.enable_grad():
                loss = F.cross_entropy(given[chosen] + correction(rows[chosen]), names[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            held = float(F.cross_entropy(logits[:, -1] + correction(z[:, -1]), own))
        if held < least:
            best, least, best_epoch = [x.detach().clone() for x in (u, c, v)], held, epoch
        elif epoch - best_epoch >= PATIENCE:
            break
    with torch.no_grad():
        for parameter, value in zip((u, c, v), best, strict=True):
            parameter.copy_(value)
    return correction


def _tested(logits: Tensor) -> InstanceProbe:
    """From the logits of held-out views, [N, A, N]."""
    own = torch.arange(len(logits), device=logits.device)
    right = (logits.argmax(2) == own[:, None]).float().mean(1)
    log_p = logits.log_softmax(2)[own, :, own]  # [N, A]
    return InstanceProbe(right, -log_p.mean(1))


def groupings(classes: int, tasks: int, most: int, seed: int = 0) -> Tensor:
    """Random tasks that do not tell some classes apart: int64 [tasks, classes], the group of each class.

    Each has k groups, k uniform in 2 .. most, none of them empty; the other classes join one at random.
    Source: the "aggregated tasks" of Dubois et al. 2022, arXiv:2209.06235, released code (16 of them).

    >>> table = groupings(10, tasks=3, most=2)
    >>> table.shape, table.unique().tolist()
    (torch.Size([3, 10]), [0, 1])
    """
    if classes < 2 or most < 2:
        raise DataError(f"There are {classes} classes in {most} groups.", "Give at least two of each.")
    random = generator("groupings", classes, most, seed)
    table = torch.empty(tasks, classes, dtype=torch.int64)
    for task in table:
        k = int(torch.randint(2, min(most, classes) + 1, (1,), generator=random))
        group = torch.randint(k, (classes,), generator=random)
        group[:k] = torch.arange(k)
        task[torch.randperm(classes, generator=random)] = group
    return table


def grouping_accuracy(
    features: Tensor,
    classes: Tensor,
    tables: Tensor,
    test_features: Tensor | None = None,
    test_classes: Tensor | None = None,
) -> Tensor:
    """Accuracy of an affine least-squares probe on each task, float32 [T].

    With the training rows as test rows, 1 on every task is population optimality for linear probes (Dubois et al.
    2022, arXiv:2209.06235, definition 2) on these images. Least squares can miss a perfect classifier where one exists,
    but not one of affinely independent invariant codes: then it interpolates. One factorisation serves all tasks.

    Args:
        features: [M, F]; classes: int64 [M]; tables: of :func:`groupings`.
        test_features, test_classes: of other rows to test on; default: the same rows.

    >>> codes = torch.eye(6)[torch.arange(12) % 6]
    >>> float(grouping_accuracy(codes, torch.arange(12) % 6, groupings(6, 16, 6)).min())
    1.0
    """
    x, mean, std = standardise(features)  # centred, hence orthogonal to the intercept
    test = x if test_features is None else (test_features.float() - mean) / std
    tested = classes if test_classes is None else test_classes
    x, test, count = _wide(x), _wide(test), int(tables.shape[1])
    factor = torch.linalg.cholesky(x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device))
    sums = x.new_zeros(count, x.shape[1]).index_add_(0, classes, x)  # X^T Y before grouping     [C, F]
    sizes = torch.bincount(classes, minlength=count).to(x)
    accuracies = []
    for table in tables.to(x.device):
        groups = F.one_hot(table).to(x)  # [C, k]
        weight = torch.cholesky_solve(sums.T @ groups, factor)  # [F, k]
        scores = test @ weight + sizes @ groups / len(x)
        accuracies.append((scores.argmax(1) == table[tested]).float().mean())
    return torch.stack(accuracies)


def _wide(x: Tensor) -> Tensor:
    """float64 where there is one: the normal equations square the condition number."""
    return x if x.device.type == "mps" else x.double()


@dataclass(frozen=True)
class Risks:
    """0-1 errors of linear probes, bool arrays per image."""

    seen: NDArray[np.bool_]
    """r_A,F: fitted on all training features, tested on them."""
    unseen: NDArray[np.bool_]
    """r_A,S: fitted on four fifths of the training features, tested on the other fifth."""
    test: NDArray[np.bool_]
    """r_U,S: fitted on all training features, tested on test features."""


def risks(
    probe: LinearProbe, features: Tensor, labels: Tensor, test_features: Tensor, test_labels: Tensor, seed: int = 0
) -> Risks:
    """The three risks whose differences say where a probe's error comes from.

    ``probe`` is fitted on ``features`` [N, F]; a second one is, with its weight decay, on four fifths of them.

        r_U,S = r_A,F  +  (r_A,S - r_A,F)          +  (r_U,S - r_A,S)
                usability  probe generalisation       encoder generalisation

    Usability contains what even the best encoder of this architecture would miss, which is not measured here.
    Source: Dubois, Hashimoto and Liang 2023, arXiv:2302.03068, section 3; the fifth is ours.

    Raises:
        DataError: every class has fewer than three training images.
    """
    held, kept = held_out(labels, seed + 1)  # not the fifth on which the weight decay was chosen
    classes = probe.bias.shape[0]
    partial = fit(features[kept], labels[kept], classes, probe.weight_decay)

    def errors(probe: LinearProbe, x: Tensor, y: Tensor) -> NDArray[np.bool_]:
        wrong: NDArray[np.bool_] = (probe.predict(x) != y).cpu().numpy()
        return wrong

    return Risks(
        seen=errors(probe, features, labels),
        unseen=errors(partial, features[held], labels[held]),
        test=errors(probe, test_features, test_labels),
    )


def difference_of_means(a: NDArray[np.generic], b: NDArray[np.generic], resamples: int, seed: int) -> Estimate:
    """mean(b) - mean(a) of two sets of images [N] and [M], resampled apart (percentile bootstrap, 95 %).

    >>> difference_of_means(np.zeros(4), np.ones(8), 100, 0).value
    1.0
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    random = np.random.default_rng(seed)
    draws = [
        b[random.integers(0, len(b), len(b))].mean() - a[random.integers(0, len(a), len(a))].mean()
        for _ in range(resamples)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(float(b.mean() - a.mean()), float(low), float(high))

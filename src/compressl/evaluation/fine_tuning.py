"""Fine-tuning: the whole encoder with a linear layer, trained on few and on all labels, beside training from scratch.

One stated protocol for every encoder, after the usual one for few labels (Chen et al. 2020, appendix B.5: SGD with
Nesterov momentum, random crop and flip, no other augmentation), but with a learning rate that is chosen on held-out
*training* images and a bound on the steps. The figures compare representations; they are not the best that an encoder
can reach with a long training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressl.devices import autocast
from compressl.errors import DataError
from compressl.evaluation.ground import ENCODER, RANDOM, Ground
from compressl.measures.few_labels import draw_fraction
from compressl.measures.intervals import bootstrap_mean
from compressl.measures.linear import held_out
from compressl.measures.packing import pack_bits
from compressl.randomness import key, permutation
from compressl.settings.views import ViewRecipe
from compressl.views import Views, normalize

RATES = (0.01, 0.03, 0.1)  # peak learning rates: a trained encoder often wants the first, random weights the last
EPOCHS = 20  # of the labelled images, within the next two bounds
LEAST, MOST = 200, 2000  # steps: with few labels 20 epochs are no training; with all of them they take hours on a CPU
TRIAL = 4  # a trial of a learning rate has a quarter of the steps, but not less than the least: half the cost in all
BATCH = 128
WARMUP = 0.05  # share of the steps: the linear layer starts at zero and should find a direction before the rest moves
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
MIN_SCALE = 0.3  # crops milder than those of the pretraining: there are few passes, and the class must stay visible


@dataclass(frozen=True)
class Work:
    """One encoder on one amount of labels."""

    ground: Ground
    name: str
    features: int
    tell: Callable[[int], None]
    """Told every step that is done."""


def measure(ground: Ground) -> dict[str, Any]:
    """Accuracy on the test images after fine-tuning on a share of the training labels, of an encoder and from scratch.

    For each share: the images of draw 0 of the few labels; each learning rate has a shorter training on four fifths of
    them, the best on the held-out fifth trains on all, and that classifier alone sees the test images, once. The
    encoders of the ground stay as they are.

    Raises:
        DataError: no share has images enough to hold some out.
    """
    labels, seed = ground.labels("train"), ground.settings.seed
    record: dict[str, Any] = {"protocol": protocol(ground), ENCODER: {}, RANDOM: {}}
    skipped: dict[str, str] = {}
    for fraction in sorted({*ground.settings.fractions, 1.0}):
        amount = f"{100 * fraction:g} %"
        rows = draw_fraction(labels, fraction, seed, draw=0)
        try:
            held, kept = (rows[part] for part in held_out(labels[rows], seed))
        except DataError as error:
            skipped[amount] = str(error)
            continue
        for name in (ENCODER, RANDOM):
            record[name][amount] = _one_share(ground, name, amount, rows, kept, held)
    if not record[ENCODER]:
        raise DataError(" ".join(skipped.values()), "Give more labelled images.")
    return record | ({"skipped": skipped} if skipped else {})


def protocol(ground: Ground) -> str:
    """What the figures mean, in words."""
    flip, rates = _recipe(ground).flip, ", ".join(f"{rate:g}" for rate in RATES)
    return (
        f"SGD, Nesterov momentum {MOMENTUM:g}, weight decay {WEIGHT_DECAY:g}, batch {BATCH}, {EPOCHS} epochs but "
        f"{LEAST} to {MOST} steps, cosine with {WARMUP:.0%} warm-up; crops of {MIN_SCALE:.0%} to 100% of the area, "
        f"mirrored with probability {flip:g}; peak learning rate of {{{rates}}} chosen on a held-out fifth of the "
        f"labelled training images after trainings of 1/{TRIAL} of the steps, {LEAST} at least, then trained on all of "
        "them; test images seen once"
    )


def steps_for(images: int) -> int:
    """:data:`EPOCHS` passes over the labelled images, within :data:`LEAST` and :data:`MOST`.

    >>> steps_for(500), steps_for(5000), steps_for(50000)
    (200, 782, 2000)
    """
    return min(MOST, max(LEAST, math.ceil(EPOCHS * images / BATCH)))


def _one_share(ground: Ground, name: str, amount: str, rows: Tensor, kept: Tensor, held: Tensor) -> dict[str, Any]:
    with torch.no_grad():
        features = ground.encode(name, next(ground.images("train", rows[:2]))).shape[1]
    labels, expected = ground.labels("train"), ground.labels("test")
    steps = steps_for(len(rows))
    trial = min(steps, max(LEAST, steps // TRIAL))
    total, done = len(RATES) * trial + steps, 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        ground.count(f"{name}: fine-tuning on {amount}", done, total)

    work = Work(ground, name, features, tell)
    accuracies = {}
    for rate in RATES:
        predicted = _predict(work, _train(work, kept, rate, trial), "train", held)
        accuracies[rate] = float((predicted == labels[held]).float().mean())
    best = max(RATES, key=lambda rate: accuracies[rate])  # the smallest of equals
    correct = (_predict(work, _train(work, rows, best, steps), "test", None) == expected).cpu().numpy()
    return {
        **asdict(bootstrap_mean(correct, ground.settings.resamples, ground.settings.seed)),
        "correct": pack_bits(correct),
        "images": len(rows),
        "steps": steps,
        "trial_steps": trial,
        "learning_rate": best,
        "held_out": {f"{rate:g}": accuracy for rate, accuracy in accuracies.items()},
    }


def _train(work: Work, rows: Tensor, peak: float, steps: int) -> nn.Module:
    """A copy of the encoder with a linear layer, trained on some training images."""
    ground, labels = work.ground, work.ground.labels("train")[rows]
    model = _with_head(work)
    weights, others = ([p for p in model.parameters() if (p.ndim > 1) == big] for big in (True, False))
    groups = [{"params": weights, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=peak, momentum=MOMENTUM, nesterov=True)
    size = min(BATCH, len(rows))
    per_epoch = len(rows) // size
    model.train()
    for step in range(steps):
        epoch, batch = divmod(step, per_epoch)
        chosen = permutation(len(rows), ground.settings.seed, epoch)[batch * size : (batch + 1) * size]
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, steps, peak)
        x = _view(ground, rows.cpu()[chosen], epoch)
        with autocast(ground.device, ground.settings.precision):
            logits = model(x)
        loss = F.cross_entropy(logits.float(), labels[chosen.to(labels.device)])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        work.tell(1)
    return model.eval()


def _with_head(work: Work) -> nn.Module:
    head = nn.Linear(work.features, work.ground.classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    model = nn.Sequential(work.ground.copy_of(work.name), head).to(work.ground.device)
    return model.requires_grad_().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _rate(step: int, steps: int, peak: float) -> float:
    """Linear to the peak, then a cosine to zero.

    >>> [round(_rate(step, 40, 1.0), 2) for step in (0, 1, 21, 40)]
    [0.5, 1.0, 0.5, 0.0]
    """
    warmup = int(WARMUP * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def _recipe(ground: Ground) -> ViewRecipe:
    """Crop and flip; mirrored as often as in the pretraining, which knows whether mirroring keeps the class."""
    return ViewRecipe(
        size=ground.card.size,
        min_scale=MIN_SCALE,
        flip=ground.views.resolve(ground.card.size)[0].flip,
        jitter=0.0,
        grayscale=0.0,
        mean=ground.card.mean,
        std=ground.card.std,
    )


def _view(ground: Ground, rows: Tensor, epoch: int) -> Tensor:
    indices = ground.train.indices[rows.numpy()]
    stored, geometry = ground.train.packed.gather(indices)
    views = Views((_recipe(ground),), key("fine-tuning", ground.settings.seed))
    images = torch.from_numpy(stored).to(ground.device)
    (view,) = views(
        images, torch.from_numpy(geometry), torch.from_numpy(indices), epoch, memory_format=torch.channels_last
    )
    return view


@torch.no_grad()
def _predict(work: Work, model: nn.Module, split: str, rows: Tensor | None) -> Tensor:
    """Classes of images by their central views, int64 [M]."""
    ground, found = work.ground, []
    for images in ground.images(split, rows):
        x = normalize(images, ground.card.mean, ground.card.std).contiguous(memory_format=torch.channels_last)
        with autocast(ground.device, ground.settings.precision):
            found.append(model(x).argmax(1))
    return torch.cat(found)

"""Accuracy under attack: an encoder and its linear probe, with gradients to the pixels."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from compressl.evaluation.ground import ENCODER, Ground
from compressl.measures.attack import Norm, pgd
from compressl.measures.intervals import bootstrap_mean
from compressl.measures.packing import pack_bits

IMAGES, STEPS = 500, 10
EPSILONS: dict[Norm, tuple[float, ...]] = {"linf": (0.0, 1 / 255, 2 / 255, 4 / 255), "l2": (0.25, 0.5)}
_SHARE = 4  # of the batch size: gradients need what a forward pass alone forgets


def measure_attacks(ground: Ground) -> dict[str, Any]:
    """Accuracy of the encoder's linear probe under projected gradient ascent (Madry et al. 2018), by norm and size."""
    rows = ground.rows("test", min(ground.settings.images, IMAGES))
    labels = ground.labels("test")[rows.to(ground.device)]
    probe, settings = ground.probe(ENCODER), ground.settings
    found: dict[str, Any] = {"images": len(rows), "steps": STEPS}
    total, done = len(rows) * sum(map(len, EPSILONS.values())), 0

    def logits(images: Tensor) -> Tensor:
        return probe.logits(ground.encode(ENCODER, images))

    images = torch.cat(list(ground.images("test", rows)))
    at_once = max(1, settings.batch_size // _SHARE)
    for norm, epsilons in EPSILONS.items():
        found[norm] = []
        for epsilon in epsilons:
            right = []
            parts = (torch.split(values, at_once) for values in (images, labels, rows))
            for x, true, keys in zip(*parts, strict=True):
                attacked = pgd(logits, x, true, epsilon, norm=norm, steps=STEPS, keys=keys, seed=settings.seed)
                with torch.no_grad():
                    right.append((logits(attacked).argmax(1) == true).cpu())
                done += len(x)
                ground.count("attacked images", done, total)
            correct = torch.cat(right).numpy()
            accuracy = asdict(bootstrap_mean(correct, settings.resamples, settings.seed))
            found[norm].append({"epsilon": epsilon, "accuracy": accuracy, "correct": pack_bits(correct)})
    return found

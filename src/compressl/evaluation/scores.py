"""Uncertainty scores of any images: from their features, and from the code that a method draws.

Scores are higher where an image is less certain. The probe, the bank of neighbours and the probe of codes are of the
training images, so that a score is a function of an image alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from compressl.data import open_source
from compressl.evaluation.ground import ENCODER, Ground
from compressl.evaluation.labelled import Labelled, per_class
from compressl.measures import uncertainty
from compressl.measures.linear import LinearProbe, fit
from compressl.methods import Method
from compressl.randomness import generator

BANK = 10_000  # training images that distances and the probe of codes use, at most
KINDS, SEVERITIES = ("gaussian_noise", "defocus_blur"), (1, 2, 3, 4, 5)

Scores = dict[str, Tensor]  # [N] each


@dataclass(frozen=True)
class Codes:
    """Scores from the code that a method draws: its entropy, and how far predictions differ between draws."""

    method: Method
    probe: LinearProbe  # of one drawn code of each training image
    count: int
    seed: int
    entropy_varies: bool

    @staticmethod
    def of(ground: Ground, bank: Tensor, labels: Tensor, weight_decay: float) -> Codes | None:
        """From the bank's features [M, F]; None for a method that draws no code."""
        with torch.no_grad():
            channel = ground.method.channel(bank) if ground.method is not None else None
        if channel is None or ground.method is None:
            return None
        seed, entropy = ground.settings.seed, channel.entropy()
        probe = fit(channel.sample(generator("codes for a probe", seed)), labels, ground.classes, weight_decay)
        varies = bool(entropy.max() > entropy.min())  # the same for all with a constant concentration
        return Codes(ground.method, probe, ground.settings.draws, seed, varies)

    def __call__(self, features: Tensor) -> Scores:
        channel = self.method.channel(features)
        assert channel is not None  # there was one for the bank
        logits = torch.stack([self.probe.logits(z) for z in uncertainty.draws(channel, self.count, self.seed)])
        total, spread = uncertainty.disagreement(logits)
        found = {"code_predictive_entropy_bits": total, "code_disagreement_bits": spread}
        if self.entropy_varies:
            found["code_entropy_bits"] = uncertainty.code_entropy(channel)
        return found


@dataclass(frozen=True)
class Scorer:
    """Scores of images from their features alone."""

    probe: LinearProbe
    bank: Tensor
    k: int
    codes: Codes | None

    @staticmethod
    def of(ground: Ground, name: str) -> Scorer:
        rows = ground.rows("train", BANK).to(ground.device)
        bank, probe, codes = ground.features(name, "train")[rows], ground.probe(name), None
        if name == ENCODER:
            codes = Codes.of(ground, bank, ground.labels("train")[rows], probe.weight_decay)
        return Scorer(probe, bank, ground.settings.k, codes)

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Scores:
        """[N, F] -> by score, [N] on the CPU."""
        logits = self.probe.logits(features)
        found = {
            "entropy_bits": uncertainty.predictive_entropy(logits),
            "least_confidence": uncertainty.least_confidence(logits),
            "negative_norm": uncertainty.negative_norm(features),
            "knn_distance": uncertainty.knn_distance(self.bank, features, self.k),
            **(self.codes(features) if self.codes else {}),
        }
        return {score: values.cpu() for score, values in found.items()}


@torch.no_grad()
def corrupted_scores(ground: Ground, rows: Tensor, scorers: dict[str, Scorer]) -> dict[str, dict[str, list[Scores]]]:
    """Representation -> kind -> severities 1 to 5 -> scores of the test images of ``rows``; each corrupted once."""
    return {
        name: {
            kind: [scorer(ground.corrupted_features(name, "test", rows, kind, level)) for level in SEVERITIES]
            for kind in KINDS
        }
        for name, scorer in scorers.items()
    }


def other_data(ground: Ground, path: str) -> Ground:
    """The same representations on the test images of other data, ``settings.images`` of them at most.

    Their labels play no part and are zeros.

    Raises:
        DataError, UsageError: there are no such images.
    """
    settings = ground.settings
    source = open_source(path, "test", seed=settings.seed)
    packed = ground.pack(source, source.name)
    indices = np.flatnonzero(packed.readable)
    nothing = np.zeros(len(indices), dtype=np.int64)
    chosen = per_class(nothing, min(settings.images, len(indices)), settings.seed)
    return replace(ground, test=Labelled(packed, indices[chosen], nothing[chosen]))

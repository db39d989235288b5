"""Looks at the encoder while it trains: signs of life, not results."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressl import distributed
from compressl.devices import autocast
from compressl.evaluation import features
from compressl.measures import knn
from compressl.randomness import permutation
from compressl.training.setup import Training

KNN_BANK, KNN_QUERIES = 5000, 1000  # training images of the online kNN, at most


@torch.no_grad()
def embed(training: Training, view: Tensor) -> Tensor:
    """Embeddings of up to 256 images of the whole batch in evaluation mode."""
    training.method.eval()
    with _uncompiled(), autocast(training.device, training.precision):
        embeddings = training.method.embed(view[: -(-256 // distributed.world_size())]).float()
    training.method.train()
    return distributed.gather(embeddings)


def knn_score(training: Training) -> float | None:
    """kNN accuracy of the encoder between training images, or None without labels: a sign of life, not a result.

    The main process alone computes it: in evaluation mode no layer waits for the others.
    """
    packed, settings = training.packed, training.settings
    if packed.labels is None or not settings.knn_every or not distributed.is_main():
        return None
    order = permutation(len(packed), settings.seed, epoch=-2).numpy()
    order = order[packed.readable[order]]
    count = min(KNN_QUERIES, len(order) // 10)
    if count == 0:
        return None
    with _uncompiled():
        queries, bank = (
            features.extract(
                training.method.encoder,
                packed,
                chosen,
                size=training.card.size,
                mean=training.card.mean,
                std=training.card.std,
                device=training.device,
                precision=training.precision,
                batch_size=settings.micro_batch or settings.batch_size,
            )
            for chosen in (order[:count], order[count : count + KNN_BANK])
        )
    classes, numbered = np.unique(packed.labels, return_inverse=True)  # labels may be any numbers
    labels = torch.from_numpy(numbered).to(training.device)
    expected = labels[torch.from_numpy(order[:count])]
    known = labels[torch.from_numpy(order[count : count + KNN_BANK])]
    predicted = knn.knn_predict(bank, known, queries, len(classes))
    return float((predicted == expected).float().mean())


def _uncompiled() -> AbstractContextManager[Any]:
    """These batches have other sizes than a step's: they are not worth a compilation."""
    return torch.compiler.set_stance("force_eager")  # type: ignore[no-any-return]

"""The mathematics of the methods: tensors in, ``(loss, terms)`` out, and nothing else.

Each loss is a mean over images and over the two directions (view 1 to view 2 and back); the released code of
arXiv:2109.12909 sums the directions, so its numbers are twice these. ``terms`` are detached scalars, information in
nats. Everything is computed in float32 (float64 stays float64) with autocast off. Nothing here knows about processes:
gather the embeddings first (:mod:`compressl.distributed`).
"""

from compressl.objectives.byol import BYOLLoss
from compressl.objectives.cbyol import CBYOLLoss
from compressl.objectives.csimclr import CSimCLRLoss
from compressl.objectives.simclr import SimCLRLoss
from compressl.objectives.von_mises_fisher import VonMisesFisher

__all__ = ["BYOLLoss", "CBYOLLoss", "CSimCLRLoss", "SimCLRLoss", "VonMisesFisher"]

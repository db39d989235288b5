"""The mathematics of the methods: tensors in, ``(loss, terms)`` out, and nothing else.

Each loss is a mean over images and over the two directions (view 1 to view 2 and back), or, where the paper has other
pairs of crops, over those; the released code of arXiv:2109.12909 sums the directions, so its numbers are twice these.
Barlow Twins and VICReg are statistics of a whole batch and have no loss of a single image. ``terms`` are detached
scalars, information in nats unless the name says bits. Everything is computed in float32 (float64 stays float64) with
autocast off. Nothing here knows about processes: gather the embeddings first (:mod:`compressl.distributed`).
"""

from compressl.objectives.barlow_twins import BarlowTwinsLoss
from compressl.objectives.byol import BYOLLoss
from compressl.objectives.cbyol import CBYOLLoss
from compressl.objectives.cissl import CISSLLoss
from compressl.objectives.csimclr import CSimCLRLoss
from compressl.objectives.dino import DINOLoss
from compressl.objectives.dissl import DISSLLoss
from compressl.objectives.latents import BernoulliLatent, GaussianLatent
from compressl.objectives.moco import MoCoLoss
from compressl.objectives.mveb import MVEBLoss
from compressl.objectives.simclr import SimCLRLoss
from compressl.objectives.simsiam import SimSiamLoss
from compressl.objectives.stein import stein_score
from compressl.objectives.stochcon import StochConLoss
from compressl.objectives.swav import SwAVLoss
from compressl.objectives.vicreg import VICRegLoss
from compressl.objectives.von_mises_fisher import VonMisesFisher

__all__ = [
    "BYOLLoss",
    "BarlowTwinsLoss",
    "BernoulliLatent",
    "CBYOLLoss",
    "CISSLLoss",
    "CSimCLRLoss",
    "DINOLoss",
    "DISSLLoss",
    "GaussianLatent",
    "MVEBLoss",
    "MoCoLoss",
    "SimCLRLoss",
    "SimSiamLoss",
    "StochConLoss",
    "SwAVLoss",
    "VICRegLoss",
    "VonMisesFisher",
    "stein_score",
]

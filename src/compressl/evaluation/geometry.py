"""How ideal a representation is, condition by condition: invariance, dimension, predictability, tasks.

The three conditions under which linear probes solve every task that the augmentations leave alone, from as few labels
as possible, are those of Dubois et al. 2022 (arXiv:2209.06235, theorem 1). Each figure stands beside that of a random
encoder and of raw pixels, and beside its null: the same views dealt to images at random.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressl.errors import DataError, UsageError
from compressl.evaluation.ground import ENCODER, PIXELS, RANDOM, Ground
from compressl.measures import geometry, spectrum, tasks
from compressl.measures.intervals import bootstrap_mean
from compressl.measures.packing import pack_floats
from compressl.objectives.von_mises_fisher import VonMisesFisher
from compressl.randomness import generator
from compressl.settings.views import ViewRecipe

TASKS = 16  # random groupings (Dubois et al. 2022, released code)
MOST_INSTANCES = 1000  # images that the instance probes tell apart: their cost grows with the square
MOST_EIGENVALUES = 512  # in the record

Record = dict[str, Any]


def measure(ground: Ground) -> Record:
    """Geometry of the encoder, a random encoder and raw pixels. What cannot be had stands under ``skipped``.

    Raises:
        DataError: features that are not finite.
    """
    skipped: dict[str, str] = {}
    results = {name: _Measured(ground, name, skipped).record() for name in (ENCODER, RANDOM, PIXELS)}
    return {"protocol": _protocol(ground), "results": results, "skipped": skipped}


def alone(recipe: ViewRecipe) -> dict[str, tuple[ViewRecipe, int]]:
    """The plain view, and each augmentation alone and always applied, as strong as in a recipe; how often it is drawn.

    >>> recipes = alone(ViewRecipe(size=32, flip=0.0))
    >>> list(recipes), recipes["flip"][0].flip, recipes["crop"][0].jitter
    (['plain', 'crop', 'flip', 'colour', 'grey', 'blur'], 1.0, 0.0)
    """
    crop = {name: getattr(recipe, name) for name in ("min_scale", "max_scale", "min_ratio", "max_ratio")}
    plain = replace(
        recipe, min_scale=1.0, max_scale=1.0, min_ratio=1.0, max_ratio=1.0,
        flip=0.0, jitter=0.0, grayscale=0.0, blur=0.0, solarize=0.0,
    )  # fmt: skip
    return {
        "plain": (plain, 1),
        "crop": (replace(plain, **crop), 2),
        "flip": (replace(plain, flip=1.0), 1),
        "colour": (replace(plain, jitter=1.0), 2),
        "grey": (replace(plain, grayscale=1.0), 1),
        "blur": (replace(plain, blur=1.0), 2),
    }


class _Measured:
    """One representation."""

    def __init__(self, ground: Ground, name: str, skipped: dict[str, str]) -> None:
        self.ground, self.name, self.skipped = ground, name, skipped
        self.rows = ground.rows("test", ground.settings.images)
        self.views = ground.view_features(name, "test", self.rows, ground.settings.views)  # [M, A, F]

    def record(self) -> Record:
        parts: dict[str, Callable[[], Record]] = {
            "invariance": self.invariance,
            "augmentations": self.augmentations,
            "spread": self.spread,
            "dimension": self.dimension,
            "instances": self.instances,
            "groupings": self.groupings,
        }
        if self.name != PIXELS:  # whose probe is slow and of no interest here
            parts["risk"] = self.risk
        found: Record = {"features": int(self.views.shape[-1])}
        for part, function in parts.items():
            self.ground.count(f"{self.name}: {part}", 0, 0)
            try:
                found[part] = function()
            except (DataError, UsageError) as error:
                self.skipped[f"{self.name}: {part}"] = str(error)
        return found

    def invariance(self) -> Record:
        """Condition 2: views of one image together, those of others apart."""
        mixed = geometry.permuted(self.views, generator("null of invariance", self.ground.settings.seed))
        found: Record = {"images": len(self.views), "views": self.views.shape[1]}
        for suffix, views in (("", self.views), ("_null", mixed)):
            cosines = geometry.cosines(views)
            positives, negatives = geometry.centred_cosines(views)
            found |= {
                f"cosine{suffix}": self.mean(cosines),
                f"alignment{suffix}": self.mean(2 - 2 * cosines),
                f"variance_ratio{suffix}": self.mean(geometry.ratio(*geometry.variances(views))),
                f"nc1{suffix}": geometry.nc1(views),
                f"centred_cosine_positives{suffix}": self.mean(positives),
                f"centred_cosine_negatives{suffix}": self.mean(negatives),
                f"retrieval{suffix}": self.mean(geometry.retrieval(views)),
            }
        found["invariance"] = self.invariance_of(geometry.alignment(self.views), geometry.alignment(mixed))
        found["centred_cosine_negatives_ideal"] = -1 / (len(self.views) - 1)
        found["per_image"] = {"cosine": pack_floats(geometry.cosines(self.views).cpu().numpy())}
        return found

    def augmentations(self) -> Record:
        """Condition 2, by augmentation: a plain view against one that this augmentation alone changed."""
        ground, found = self.ground, Record()
        first = ground.views.resolve(ground.card.size)[0]
        recipes = alone(replace(first, size=ground.card.size))
        plain = ground.view_features(self.name, "test", self.rows, 1, recipes.pop("plain")[0])
        for kind, (recipe, copies) in recipes.items():
            changed = ground.view_features(self.name, "test", self.rows, copies, recipe)
            mixed = geometry.permuted(
                torch.cat([plain, changed], 1), generator("null of invariance", ground.settings.seed)
            )[:, 1:]
            cosines, null = (geometry.cosines_to(plain[:, 0], views) for views in (changed, mixed))
            found[kind] = {
                "cosine": self.mean(cosines),
                "cosine_null": self.mean(null),
                "alignment": self.mean(2 - 2 * cosines),
                "alignment_null": self.mean(2 - 2 * null),
                "invariance": self.invariance_of(2 - 2 * cosines, 2 - 2 * null),
            }
        return found

    def spread(self) -> Record:
        """How evenly the features of all test images lie on the sphere."""
        features, kappa = self.ground.features(self.name, "test"), self.ground.kappa(self.name)
        potentials = geometry.uniformity(features)  # [N]
        nats = geometry.kernel_entropy(features, kappa)  # [N]
        most = VonMisesFisher(features.shape[1], 0.0).entropy
        return {
            "images": len(features),
            "uniformity": self.mean(geometry.log_of_mean(potentials)),
            "kappa": kappa,
            "entropy_bits": self.mean(nats / math.log(2)),
            "entropy_of_uniform_bits": most / math.log(2),
        }

    def dimension(self) -> Record:
        """Condition 3."""
        features = self.ground.features(self.name, "test")
        eigenvalues = spectrum.covariance_spectrum(features)
        rank = spectrum.correlation_rank(features)
        return {
            "images": len(features),
            "constant_columns": int((~spectrum.varying(features)).sum()),
            "correlation_rank": rank,
            "rankme": spectrum.rankme(features),
            "entropy_rank": spectrum.entropy_rank(eigenvalues),
            "participation_ratio": spectrum.participation_ratio(eigenvalues),
            "needed": self.ground.classes - 1,
            "share_of_tasks": spectrum.share_of_tasks(self.ground.classes, rank),
            "eigenvalues": [float(f"{value:.6g}") for value in eigenvalues[:MOST_EIGENVALUES].tolist()],
        }

    def instances(self) -> Record:
        """Condition 1: can the image be read off a view?"""
        views = self.views[: min(len(self.views), MOST_INSTANCES)]
        if len(self.views) > MOST_INSTANCES:  # rows are in rising order: take them from all over
            views = self.views[torch.linspace(0, len(self.views) - 1, MOST_INSTANCES).long()]
        probes = tasks.instance_probes(views, seed=self.ground.settings.seed)
        linear, mlp = probes["linear"], probes["mlp"]
        return {
            "images": len(views),
            "trained_views": views.shape[1] // 2,
            "chance": 1 / len(views),
            "chance_bits": math.log2(len(views)),
            **{
                family: {"accuracy": self.mean(probe.right), "log_loss_bits": self.mean(probe.loss / math.log(2))}
                for family, probe in probes.items()
            },
            "gap_accuracy": self.mean(mlp.right - linear.right),
            "gap_bits": self.mean((linear.loss - mlp.loss) / math.log(2)),
        }

    def groupings(self) -> Record:
        """Tasks drawn at random, and the worst of them."""
        ground, seed = self.ground, self.ground.settings.seed
        count, copies, _ = self.views.shape
        flat = self.views.flatten(0, 1)  # [M A, F]
        images = torch.arange(count, device=flat.device).repeat_interleave(copies)
        labels = ground.labels("test")[self.rows.to(flat.device)].repeat_interleave(copies)
        of_labels = tasks.groupings(ground.classes, TASKS, ground.classes, seed)
        of_images = tasks.groupings(count, TASKS, 2, seed)
        bank, queries = (ground.features(self.name, split) for split in ("train", "test"))
        tested = tasks.grouping_accuracy(bank, ground.labels("train"), of_labels, queries, ground.labels("test"))
        return {
            "tasks": TASKS,
            "labels_fitted": _worst(tasks.grouping_accuracy(flat, labels, of_labels)),
            "labels_tested": _worst(tested),
            "images_fitted": _worst(tasks.grouping_accuracy(flat, images, of_images)),
        }

    def risk(self) -> Record:
        """Where the error of the linear probe comes from."""
        ground, settings = self.ground, self.ground.settings
        found = tasks.risks(
            ground.probe(self.name), ground.features(self.name, "train"), ground.labels("train"),
            ground.features(self.name, "test"), ground.labels("test"), settings.seed,
        )  # fmt: skip

        def gap(a: Any, b: Any) -> Record:
            return asdict(tasks.difference_of_means(a, b, settings.resamples, settings.seed))

        return {
            "usability": asdict(bootstrap_mean(found.seen, settings.resamples, settings.seed)),
            "probe_generalisation": gap(found.seen, found.unseen),
            "encoder_generalisation": gap(found.unseen, found.test),
            "total": asdict(bootstrap_mean(found.test, settings.resamples, settings.seed)),
        }

    def mean(self, values: Tensor) -> Record:
        settings = self.ground.settings
        return asdict(bootstrap_mean(values.detach().cpu().numpy(), settings.resamples, settings.seed))

    def invariance_of(self, alignment: Tensor, null: Tensor) -> Record | None:
        """1 - alignment / null: 0 for unrelated views, 1 for equal ones; None where all features are the same."""
        if not float(null.mean()) > 1e-12:
            return None
        return self.mean(1 - geometry.ratio(alignment, null))


def _worst(accuracies: Tensor) -> Record:
    values = accuracies.cpu().double()
    return {
        "mean": float(values.mean()),
        "min": float(values.min()),
        "accuracies": np.round(values.numpy(), 6).tolist(),
    }


def _protocol(ground: Ground) -> Record:
    settings = ground.settings
    return {
        "views": f"{settings.views} random views of at most {settings.images} test images, as in the training",
        "null": "the same views, dealt to images at random",
        "augmentations": "a view of the full frame against the same with one augmentation, always applied, with the "
        "strength of the training's first view",
        "invariance": "1 - alignment / alignment of the null",
        "dimension": "central views of all test images; correlation rank: eigenvalues of the correlation matrix above "
        "max(1e-4, 0.01 of the largest); RankMe: singular values, not centred; entropy rank and participation ratio: "
        "of the covariance",
        "instances": "linear: Bayes' rule of a two-covariance model; MLP: 512 hidden units added to it; half of the "
        "views trained on, one calibrates, the rest tests",
        "groupings": f"{TASKS} random groupings, least squares; of labels into 2 to all groups, of images into 2",
        "risk": "0-1 risk of the linear probe; usability is not reduced by what a supervised model misses",
    }

"""evaluation.json of schema 2 that no evaluation wrote: smooth figures, all parts there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compressl.measures.intervals import bootstrap_mean
from compressl.measures.packing import pack_bits, pack_floats

Record = dict[str, Any]
KINDS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
CATEGORIES = {"noise": 3, "blur": 4, "weather": 4, "digital": 4}
SCORES = ("entropy_bits", "least_confidence", "negative_norm", "knn_distance", "dispersion")
N, IMAGES, DRAWS = 400, 200, 5


def e(value: float, half: float = 0.02) -> Record:
    return {"value": value, "low": value - half, "high": value + half}


def figure(right: np.ndarray) -> Record:
    found = bootstrap_mean(right, 200)
    return {"value": found.value, "low": found.low, "high": found.high, "correct": pack_bits(right)}


def right_of(share: float, images: int = N, seed: int = 0) -> np.ndarray:
    """The same images are easy for every encoder."""
    ease = np.random.default_rng(seed).random(images)
    return ease < share


def full_record(level: float = 0.8, *, fingerprint: str = "f", dimension: int = 64, steps: int = 4000) -> Record:
    """A record; ``level`` is the accuracy of the linear probe, and the rest follows it."""
    levels = {"encoder": level, "random encoder": 0.35, "raw pixels": 0.4}
    return {
        "schema": 2,
        "encoder": {"name": "resnet18", "size": 32},
        "data": {
            "name": "pets",
            "train_images": 2000,
            "test_images": N,
            "test_fingerprint": fingerprint,
            "train_fingerprint": "t",
            "classes": ["cat", "dog", "horse", "cow"],
            "split": "every fifth image of each class",
            "chance": 0.25,
        },
        "protocol": {"knn": "k = 20", "linear": "logistic regression", "interval": "95 %, bootstrap", "seed": 0},
        "environment": {"torch": "2.10"},
        "results": {name: _results(share, dimension) for name, share in levels.items()},
        "measures": {
            "robustness": _robustness(levels),
            "information": _information(levels, dimension, steps),
            "geometry": _geometry(levels, dimension),
            "lipschitz": _lipschitz(levels),
            "uncertainty": _uncertainty(levels),
            "transfer": {
                "birds": {
                    "data": {"test_images": N, "train_images": 900, "test_fingerprint": "b", "train_fingerprint": "c"},
                    "results": {name: _results(0.8 * share, dimension) for name, share in levels.items()},
                }
            },
            "fine-tuning": {
                "protocol": "SGD, 20 epochs",
                **{
                    name: {
                        f"{amount:g} %": figure(right_of(levels[name] * (0.6 + 0.2 * i))) | {"images": 20 * amount}
                        for i, amount in enumerate((1, 10, 100))
                    }
                    for name in ("encoder", "random encoder")
                },
            },
        },
        "skipped": {"accuracy of few labels, 100 per class": "Some class has only 60 images."},
        "seconds": {"accuracy": 3.2, "information": 41.7, "robustness": 118.0},
    }


def _results(share: float, dimension: int) -> Record:
    random = np.random.default_rng(1)
    few = {}
    for i, amount in enumerate(("1", "3", "5", "10", "30", "1 %", "10 %")):
        middle = share * (0.45 + 0.09 * min(i, 4)) if i < 5 else share * (0.6 + 0.2 * (i - 5))
        few[amount] = e(middle, 0.05 - 0.008 * min(i, 4)) | {
            "draws": (middle + 0.02 * random.normal(size=DRAWS)).tolist()
        }
    return {
        "dimension": dimension,
        "knn": figure(right_of(0.94 * share)),
        "linear": figure(right_of(share)) | {"weight_decay": 0.01},
        "ridge": figure(right_of(0.97 * share)) | {"ridge": 1.0},
        "few_labels": few,
    }


def _robustness(levels: dict[str, float]) -> Record:
    def summary(name: str) -> Record:
        share = levels[name]
        accuracy = {
            kind: [share * (1 - 0.025 * (1 + i % 4) * s * (1 - 0.4 * share)) for s in range(1, 6)]
            for i, kind in enumerate((*KINDS, *EXTRA))
        }
        mean = float(np.mean([accuracy[kind] for kind in KINDS]))
        return {
            "clean": e(share),
            "corrupted": e(mean),
            "gap": e(share - mean),
            "mean_corruption_error": e(1 - mean),
            "categories": {category: e(mean - 0.01 * size) for category, size in CATEGORIES.items()},
            "extra": e(mean + 0.02),
            "accuracy": accuracy,
            "knn": {"clean": e(0.94 * share), "corrupted": e(0.9 * mean), "gap": e(0.94 * share - 0.9 * mean)},
        }

    share = levels["encoder"]
    mean = np.clip(right_of(share, IMAGES) * 0.85, 0, 1)
    correct = {"clean": pack_bits(right_of(share, IMAGES)), "mean_corrupted": pack_floats(mean)}
    attacks = {
        norm: [
            {
                "epsilon": x,
                "accuracy": e(share / (1 + 40 * x)),
                "correct": pack_bits(right_of(share / (1 + 40 * x), 50)),
            }
            for x in epsilons
        ]
        for norm, epsilons in {"linf": (0.0, 1 / 255, 2 / 255, 4 / 255), "l2": (0.25, 0.5)}.items()
    }
    names = ("encoder", "random encoder")
    shifted = {
        name: {
            "accuracy": figure(right_of(0.8 * levels[name], 300)),
            "clean": e(levels[name]),
            "gap": e(0.2 * levels[name], 0.04),
        }
        for name in names
    }
    return {
        "protocol": {"classifier": "linear probe of clean training images"},
        "conditions": {"images": IMAGES, "rows": "r", "data": "f", "size": 32, "seed": 0},
        "kinds": {"benchmark": list(KINDS), "extra": list(EXTRA)},
        "results": {"encoder": summary("encoder") | {"correct": correct}, "random encoder": summary("random encoder")},
        "attacks": {"images": 50, "steps": 10, **attacks},
        "shift": {
            "sketches": {
                "images": 300,
                "data": "s",
                "rows": "r",
                "classes": ["cat", "dog"],
                "clean_images": 200,
                "results": shifted,
            },
        },
        "skipped": {"shift paintings": "paintings has no labels."},
    }


def _bound(low: float, high: float, saturated: bool = False) -> Record:
    ends = {"lower": e(low, 0.03) | {"standard_error": 0.01}, "upper": e(high, 0.03) | {"standard_error": 0.01}}
    return {**ends, "ceiling": 7.6, "saturated": saturated}


def _plain(low: float, high: float, saturated: bool = False) -> Record:
    return {"lower": low, "upper": high, "saturated": saturated}


def _information(levels: dict[str, float], dimension: int, steps: int) -> Record:
    def representation(name: str) -> Record:
        kept, extra = 6.5 * levels[name] ** 0.7, 2.4 * (1.2 - levels[name])
        curve = []
        for kappa in (1.0, 3.0, 10.0, 20.0, 30.0, 50.0, 100.0, 300.0, 1000.0):
            x = kappa**2 / (dimension / 2 + kappa) / math.log(2)
            up, over = kept * (1 - math.exp(-x / 8)), extra * (1 - math.exp(-x / 25))
            end = kappa > 200
            curve.append(
                {
                    "kappa": kappa,
                    "orthogonal_bits": x,
                    "total": _plain(up + over, up + over + 0.3, end),
                    "kept": _plain(up, up + 0.05 + 0.004 * x**0.7, end),
                    "superfluous": _plain(over, over + 0.05 + 0.003 * x**0.7, end),
                }
            )
        values = np.random.default_rng(2).normal(size=IMAGES)
        return {
            "dimension": dimension,
            "kappa": 33.0,
            "total": _bound(kept + extra, kept + extra + 0.3),
            "kept": _bound(kept, kept + 0.2),
            "superfluous": _bound(extra, extra + 0.15),
            "per_image": {
                "kept_lower": pack_floats(kept + 0.2 * values),
                "superfluous_upper": pack_floats(extra + 0.1 * values),
            },
            "rate_curve": curve,
            "resolved_kappa": 100.0,
            "superfluous_at": [
                {"kept_bits": level, "superfluous_bits": 0.3 * level if level < kept - 1 else None}
                for level in (1.0, 2.0, 4.0)
            ],
            "skipped": {},
        }

    share = levels["encoder"]
    plane = []
    for i in range(7):
        t = i / 6
        kept, over = 1 + 4.5 * share * t**0.6, 0.6 + 2.5 * t * (1.1 - t * share)
        point = {"kept": _plain(kept, kept + 0.2), "superfluous": _plain(over - 0.1, over)}
        point["total"] = _plain(kept + over, kept + over + 0.3)
        plane.append({"step": max(1, steps * i // 6), **point, "knn": e(0.3 + 0.6 * share * t)})
    return {
        "unit": "bits",
        "images": IMAGES,
        "views": 8,
        "kappa": 33.0,
        "channel": "von Mises-Fisher",
        "class_bits": 2.0,
        "representations": {name: representation(name) for name in ("encoder", "random encoder")},
        "trained_channel": {
            "channel": "von Mises-Fisher, dimension 128, concentration 256",
            **{part: _bound(x, x + 0.3) for part, x in (("total", 6.1), ("kept", 4.8), ("superfluous", 1.3))},
        },
        "residual": {"given": "the other view", "excess_bits": e(0.8), "per_image": {"excess_bits": ""}},
        "plane": plane,
        "skipped": {},
    }


def _geometry(levels: dict[str, float], dimension: int) -> Record:
    def one(name: str) -> Record:
        share = levels[name]
        found = {
            "features": dimension,
            "invariance": {
                "images": IMAGES,
                "views": 8,
                "cosine": e(0.9 * share, 0.005),
                "cosine_null": e(0.3, 0.01),
                "alignment": e(2 - 1.8 * share),
                "variance_ratio": e(1.2 - share),
                "retrieval": e(share),
                "invariance": e(share),
                "per_image": {"cosine": pack_floats(0.9 * share + 0.01 * np.random.default_rng(3).normal(size=IMAGES))},
            },
            "augmentations": {
                kind: {"invariance": e(share ** (1 + i / 3))}
                for i, kind in enumerate(("crop", "flip", "colour", "grey", "blur"))
            },
            "spread": {"uniformity": e(-2.5 * share)},
            "dimension": {
                "correlation_rank": int(40 * share),
                "rankme": 45 * share,
                "entropy_rank": 30 * share,
                "participation_ratio": 18 * share,
                "needed": 3,
                "eigenvalues": [3 * math.exp(-i / (14 * share)) for i in range(dimension)],
            },
            "instances": {"linear": {"accuracy": e(share)}, "gap_accuracy": e(0.01), "chance": 0.005},
            "groupings": {"labels_tested": {"mean": share, "min": share - 0.1, "accuracies": [share]}},
        }
        if name != "raw pixels":
            risks = {"usability": 1 - share - 0.05, "probe_generalisation": 0.03, "encoder_generalisation": 0.02}
            found["risk"] = {key: e(value) for key, value in risks.items()} | {"total": e(1 - share)}
        return found

    return {"protocol": {"null": "dealt at random"}, "results": {name: one(name) for name in levels}, "skipped": {}}


def _quantiles(middle: float) -> Record:
    return {"max": 4 * middle, "q05": middle / 2, "q50": middle, "q95": 2 * middle, "mean": e(middle)}


def _lipschitz(levels: dict[str, float]) -> Record:
    def one(name: str, factor: float) -> Record:
        slopes = pack_floats(factor * np.random.default_rng(4).random(IMAGES))
        kinds = ("views", "gaussian_noise", "brightness", "defocus_blur", "interpolation")
        return {
            "kappa": 33.0,
            "pairs": {
                k: {"slope": _quantiles(0.02 * factor * (i + 1)), "per_image": slopes} for i, k in enumerate(kinds)
            },
            "local": {"slope": _quantiles(0.5 * factor), "per_image": slopes},
        }

    share = levels["encoder"]
    results = {"encoder": one("encoder", 2 - share), "random encoder": one("random encoder", 0.4)}
    return {
        "protocol": {"inputs": "pixels"},
        "results": results | {"encoder, vMF mean": one("head", 1.8 - share)},
        "skipped": {"encoder: blur": "All pairs of images are equal."},
    }


def _uncertainty(levels: dict[str, float]) -> Record:
    def one(name: str) -> Record:
        share = levels[name]
        middle = (np.arange(15) + 0.5) / 15
        count = np.where(middle > 0.2, np.round(40 * middle), 0)

        def calibration(tilt: float) -> Record:
            accuracy = np.clip(middle - tilt * middle * (1 - middle), 0, 1) * (count > 0)
            bins = {"low": middle - 1 / 30, "high": middle + 1 / 30, "confidence": middle, "accuracy": accuracy}
            return {
                "confidence": share,
                "ece": e(0.1 * tilt + 0.01, 0.005),
                "ece_floor": 0.012,
                "brier": e(1.1 * (1 - share)),
                "nll_bits": e(2.4 * (1 - share) + 0.2 * tilt),
                "bins": {key: values.tolist() for key, values in (*bins.items(), ("count", count))},
            }

        coverage = (np.arange(20) + 1) / 20
        scores = {
            score: {
                "images": N,
                "auroc": e(0.5 + 0.3 * share - 0.05 * i),
                "fpr95": 0.6,
                "aurc": e(0.1),
                "excess_aurc": 0.05,
                "risk": ((1 - share) * coverage ** (2 - 0.3 * i)).tolist(),
            }
            for i, score in enumerate(SCORES)
        }
        trends = {s: {"mean": [0.1] * 6, "trend": e(0.7 - 0.1 * i)} for i, s in enumerate(SCORES[:4])}
        return {
            "accuracy": share,
            "calibration": {"temperature": 1.4, "before": calibration(0.8), "after": calibration(0.1)},
            "errors": scores,
            "severity": {"gaussian_noise": trends, "defocus_blur": {**trends, "entropy_bits": None}},
            "other_data": {"birds": {"images": 300, "scores": {s: {"auroc": e(0.7), "fpr95": 0.5} for s in SCORES}}},
            "human": {
                "entropy_bits": e(0.2),
                "before": {"cross_entropy_bits": e(1.8), "kl_bits": e(1.6)},
                "after": {"cross_entropy_bits": e(1.7), "kl_bits": e(1.5)},
                "correlation": {s: e(0.1) for s in SCORES},
            },
        }

    share = levels["encoder"]
    values = np.random.default_rng(5).random(N)
    per_image = {"nll_bits": pack_floats(2.4 * (1 - share) + values), "brier": pack_floats((1 - share) + 0.1 * values)}
    results = {name: one(name) for name in ("encoder", "random encoder")}
    results["encoder"]["per_image"] = per_image | {"correct": pack_bits(right_of(share))}
    coverage = [(i + 1) / 20 for i in range(20)]
    return {"protocol": {"ece": "15 bins"}, "coverage": coverage, "results": results, "skipped": {}}

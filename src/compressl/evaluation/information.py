"""What a code of stated noise says about the image, and about the augmentation, in bits.

Features without noise say everything about their view, so that their information is infinite and tells encoders apart
in nothing. Hence a channel is stated, a von Mises-Fisher distribution about the direction of the features, alike for
every encoder. Features behind a ReLU lie in a narrow cone; less the mean of the training features they do not. Those
are the figures to read; the ones of the features as they are stand beside them.

Where a concentration is high, a lower bound reaches its ceiling, log2 of the number of images or views, and tells
nothing any more. So there are a curve over concentrations, the highest one of them that is resolved, and, read off the
curve, what is at most superfluous where at least a given number of bits is kept: that depends on no concentration.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from compressl.errors import CompresslError, DataError
from compressl.evaluation.ground import ENCODER, RANDOM, Ground
from compressl.measures.channels import (
    BernoulliChannel,
    Channel,
    GaussianChannel,
    VonMisesFisherChannel,
    orthogonal_bits,
)
from compressl.measures.information import Bounds, Split, split_information, superfluous_at
from compressl.measures.intervals import bootstrap_mean
from compressl.measures.knn import knn_predict
from compressl.measures.packing import pack_floats
from compressl.methods import Method
from compressl.objectives.latents import active_bits, code_bits, signal_to_noise
from compressl.randomness import generator

KAPPAS = (1.0, 3.0, 10.0, 20.0, 30.0, 50.0, 100.0, 300.0, 1000.0)
FEWEST = 50  # images: log2 50 = 5.6 bits is the least ceiling of use
LEVELS = (1.0, 2.0, 4.0)  # kept bits at which the superfluous ones are compared, beside those of a class
UNCENTRED_IMAGES, CURVE_IMAGES, PLANE_IMAGES, PLANE_BANK = 2000, 1000, 500, 2000

CENTRED = "von Mises-Fisher about the direction of the features less the mean training features"
UNCENTRED = "von Mises-Fisher about the direction of the features"


@torch.no_grad()
def measure(ground: Ground) -> dict[str, Any]:
    """The record of the measure; everything is in bits.

    Raises:
        DataError: fewer than 50 test images or 2 views, or an encoder whose features are all alike.
    """
    s = ground.settings
    rows = ground.rows("test", s.images)
    if len(rows) < FEWEST:
        raise DataError(
            f"There are {len(rows)} test images, too few to bound information with.", f"Give at least {FEWEST}."
        )
    if s.views < 2:
        raise DataError("Kept and superfluous information differ by views of an image.", "Set --views 2 or more.")
    skipped, kappa = dict[str, str](), ground.kappa(ENCODER)
    record: dict[str, Any] = {
        "unit": "bits",
        "images": len(rows),
        "views": s.views,
        "kappa": kappa,
        "orthogonal_bits": orthogonal_bits(ground.card.num_features, kappa),
        "channel": CENTRED,
        "channel_uncentred": UNCENTRED,
        "class_bits": math.log2(ground.classes),
        "representations": {ENCODER: _representation(ground, ENCODER, rows)},
    }
    parts: dict[str, Callable[[], Any]] = {
        RANDOM: lambda: _representation(ground, RANDOM, rows),
        "trained_channel": lambda: _trained_channel(ground, rows),
        "residual": lambda: _residual(ground, rows),
        "plane": lambda: _plane(ground),
    }
    for part, compute in parts.items():
        try:
            (record["representations"] if part == RANDOM else record)[part] = compute()
        except CompresslError as error:
            skipped[part] = str(error)
    return record | {"skipped": skipped}


def _representation(ground: Ground, name: str, rows: Tensor) -> dict[str, Any]:
    s = ground.settings
    views = ground.view_features(name, "test", rows, s.views)  # h     [M, A, F]
    mean, kappa = ground.features(name, "train").mean(0), ground.kappa(name)
    centred = _directions(views - mean, views, name)
    split = _split(ground, VonMisesFisherChannel(centred, kappa), f"{name}: information")
    record = {"dimension": views.shape[2], **_figures(split, ground), "per_image": _per_image(split)}
    record |= _rates(ground, centred.view(views.shape), name)
    skipped: dict[str, str] = {}
    if any(point["superfluous_bits"] is None for point in record["superfluous_at"]):
        skipped["superfluous_at"] = "At no concentration of the curve is it certain that so many bits are kept."
    try:
        few = views[_spread(len(views), UNCENTRED_IMAGES)]
        own = _split(ground, VonMisesFisherChannel(_directions(few, few, name), kappa), f"{name}: information")
        record["uncentred"] = _figures(own, ground)
    except DataError as error:
        skipped["uncentred"] = str(error)
    return record | {"skipped": skipped}


def _directions(centred: Tensor, features: Tensor, name: str) -> Tensor:
    """mu = (h - mean) / ||h - mean||, [M, A, F] -> [M A, F].

    Raises:
        DataError: some of them have no direction but that of rounding.
    """
    length: Tensor = torch.linalg.vector_norm(centred, dim=2, keepdim=True)
    least = 1e-5 * float(torch.linalg.vector_norm(features, dim=2).max())
    if not bool((length > least).all()):
        raise DataError(
            f"The {name} gives some views features without a direction: zero, or those of the mean image.",
            "It has collapsed, or part of it is dead; look at the geometry of its features.",
        )
    return (centred / length).flatten(0, 1)


def _split(ground: Ground, channel: Channel, what: str) -> Split:
    ground.count(what, 0, 0)
    return split_information(channel, ground.settings.views, generator("information", ground.settings.seed))


def _rates(ground: Ground, directions: Tensor, name: str) -> dict[str, Any]:
    """Kept and superfluous bits over concentrations, from unit rows [M, A, F], and what is read off them."""
    few = directions[_spread(len(directions), CURVE_IMAGES)].flatten(0, 1)
    curve: list[dict[str, Any]] = []
    for kappa in KAPPAS:
        split = _split(ground, VonMisesFisherChannel(few, kappa), f"{name}: rate curve")
        curve.append({"kappa": kappa, "orthogonal_bits": orthogonal_bits(few.shape[1], kappa), **_means(split)})
    kept, superfluous = [p["kept"]["lower"] for p in curve], [p["superfluous"]["upper"] for p in curve]
    return {
        "rate_curve": curve,
        "rate_curve_images": len(few) // ground.settings.views,
        "resolved_kappa": max((p["kappa"] for p in curve if _resolved(p)), default=None),
        "superfluous_at": [
            {"kept_bits": level, "superfluous_bits": superfluous_at(level, kept, superfluous)}
            for level in sorted({*LEVELS, math.log2(ground.classes)})
        ],
    }


def _resolved(point: dict[str, Any]) -> bool:
    """Whether a point of the curve says something: no ceiling is near, and the bounds are within a bit."""
    parts = (point["kept"], point["superfluous"])
    return all(not part["saturated"] and part["upper"] - part["lower"] <= 1 for part in parts)


def _trained_channel(ground: Ground, rows: Tensor) -> dict[str, Any]:
    """The same by the density that the method itself trained, and what its code costs."""
    method = _method(ground)
    channel = method.channel(ground.view_features(ENCODER, "test", rows, ground.settings.views).flatten(0, 1))
    if channel is None:
        raise DataError(f"{type(method).__name__} trains no density of a code.", "Read the stated channel.")
    split = _split(ground, channel, "trained channel")
    record = {"channel": _named(channel), **_figures(split, ground), "per_image": _per_image(split)}
    central = method.channel(ground.features(ENCODER, "test")[rows])
    if isinstance(central, BernoulliChannel):
        code, size = central.logits >= 0, central.logits.shape[1]
        record["code"] = {
            "size_bits": size,
            "entropy_bits": _figure(central.entropy(), ground),  # H(z|x): the noise, not what is said
            "coded_bits": float(code_bits(code)),
            "active_bits": float(active_bits(code)),
            "image_bits": 24 * ground.card.size**2,
        }
    if isinstance(central, GaussianChannel):
        record["signal_to_noise"] = float(signal_to_noise(central.mean, central.scale))
    return record


def _residual(ground: Ground, rows: Tensor) -> dict[str, Any]:
    """The excess of the residual information by the trained backward encoder, averaged over two views of each image."""
    method = _method(ground)
    own = ground.view_features(ENCODER, "test", rows, ground.settings.views)[:, :2]  # [M, 2, F]
    if method.slow_encoder is None:
        given, source = own.flip(1), "the other view"
    else:  # the same views: they are a function of the seed, the image and their number
        given, source = ground.view_features_of(method.slow_encoder, "test", rows, 2), "the same view by the slow copy"
    terms = [method.residual_information(own[:, view], given[:, view]) for view in (0, 1)]
    found = [x for x in terms if x is not None]
    if not found:
        raise DataError(f"{type(method).__name__} trains no backward encoder.", "Read the superfluous information.")
    excess = torch.stack(found).mean(0)  # nats     [M]
    return {
        "given": source,
        "excess_bits": _figure(excess, ground),
        "per_image": {"excess_bits": pack_floats(_bits(excess.cpu().numpy()))},
    }


def _plane(ground: Ground) -> list[dict[str, Any]]:
    """Kept against superfluous bits along the training, with the accuracy of neighbours."""
    if not ground.history:
        raise DataError("There are no checkpoints of the training.", "Give a run folder that still has them.")
    s = ground.settings
    rows, bank_rows = ground.rows("test", min(PLANE_IMAGES, s.images)), ground.rows("train", PLANE_BANK)
    labels, truth = ground.labels("train")[bank_rows], ground.labels("test")[rows]
    points, kappa = list[dict[str, Any]](), ground.kappa(ENCODER)
    for step, load in ground.history:
        encoder = load().to(ground.device).eval().encoder
        bank, queries = (ground.features_of(encoder, *x) for x in (("train", bank_rows), ("test", rows)))
        views = ground.view_features_of(encoder, "test", rows, s.views)
        if not all(bool(torch.isfinite(x).all()) for x in (bank, queries, views)):
            raise DataError(
                f"The encoder of step {step} gives features that are not finite.", "Remove that checkpoint."
            )
        channel = VonMisesFisherChannel(_directions(views - bank.mean(0), views, f"encoder of step {step}"), kappa)
        split = _split(ground, channel, "information plane")
        right = knn_predict(bank, labels, queries, ground.classes, k=s.k, temperature=s.temperature) == truth
        knn = asdict(bootstrap_mean(right.cpu().numpy(), s.resamples, s.seed))
        points.append({"step": step, **_means(split), "knn": knn})
    return points


def _method(ground: Ground) -> Method:
    if ground.method is None:
        raise DataError("The heads of the training are not known.", "Evaluate a run folder whose heads were saved.")
    return ground.method


def _named(channel: Channel) -> str:
    if isinstance(channel, VonMisesFisherChannel):
        return f"von Mises-Fisher, dimension {channel.mean_direction.shape[1]}, concentration {channel.kappa:g}"
    if isinstance(channel, BernoulliChannel):
        return f"{channel.logits.shape[1]} Bernoulli bits"
    return "Gaussian with a mean and a scale for each dimension"


def _figures(split: Split, ground: Ground) -> dict[str, Any]:
    """Total, kept and superfluous bits, each bound with its interval and standard error."""
    found: dict[str, Any] = {}
    for name, bounds in _parts(split).items():
        errors = dict(zip(("lower", "upper"), map(_bits, bounds.standard_error), strict=True))
        found[name] = {
            "lower": _figure(bounds.lower, ground) | {"standard_error": errors["lower"]},
            "upper": _figure(bounds.upper, ground) | {"standard_error": errors["upper"]},
            "ceiling": _bits(bounds.ceiling),
            "saturated": bounds.saturated,
        }
    return found


def _means(split: Split) -> dict[str, Any]:
    """Total, kept and superfluous bits as plain numbers."""
    return {
        name: {
            "lower": _bits(float(bounds.lower.mean())),
            "upper": _bits(float(bounds.upper.mean())),
            "saturated": bounds.saturated,
        }
        for name, bounds in _parts(split).items()
    }


def _per_image(split: Split) -> dict[str, str]:
    """For comparisons of pairs the cautious bounds: at least this is kept, at most that is superfluous."""
    kept, superfluous = split.kept.lower.cpu().numpy(), split.superfluous.upper.cpu().numpy()
    return {"kept_lower": pack_floats(_bits(kept)), "superfluous_upper": pack_floats(_bits(superfluous))}


def _parts(split: Split) -> dict[str, Bounds]:
    return {"total": split.total, "kept": split.kept, "superfluous": split.superfluous}


def _figure(nats: Tensor, ground: Ground) -> dict[str, float]:
    """The mean of terms of each image in nats, in bits, with its interval."""
    terms = _bits(nats.double().cpu().numpy())
    return asdict(bootstrap_mean(terms, ground.settings.resamples, ground.settings.seed))


def _bits(nats: Any) -> Any:
    return nats / math.log(2)


def _spread(count: int, at_most: int) -> Tensor:
    """Positions evenly over ``count``, at most ``at_most`` of them."""
    return torch.linspace(0, count - 1, min(count, at_most)).round().long()

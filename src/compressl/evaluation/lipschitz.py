"""How far features move when an image moves a little: lower bounds of the Lipschitz constant.

Asked of unit features of the encoder and of a random encoder, which are both on a sphere and so comparable; and of the
mean direction of a von Mises-Fisher head, where one was trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compressl.corruptions import corrupt
from compressl.errors import DataError, UsageError
from compressl.evaluation.ground import ENCODER, RANDOM, Ground
from compressl.measures.channels import VonMisesFisherChannel
from compressl.measures.intervals import bootstrap_mean
from compressl.measures.lipschitz import PairBounds, input_distance, interpolate, local_slope, pair_bounds, summary
from compressl.measures.packing import pack_floats

CORRUPTIONS, SEVERITY = ("gaussian_noise", "brightness", "defocus_blur"), 3
T = 0.05  # of the way from one image to another
MOST_PAIRS, MOST_LOCAL = 512, 256  # images
LOCAL_VALUES = 1 << 17  # pixels whose slopes are found at a time: a dozen copies are kept
STEPS = 12
HEAD = "encoder, vMF mean"

Record = dict[str, Any]
Unit = Callable[[Tensor], Tensor]  # [B, 3, S, S] in [0, 1] -> unit rows [B, D]


@dataclass(frozen=True)
class Pairs:
    """Two images each, float32 [N, 3, S, S] in [0, 1]."""

    first: Tensor
    second: Tensor


def measure(ground: Ground) -> Record:
    """Bounds over pairs, and slopes at images. What cannot be had stands under ``skipped``.

    Raises:
        DataError: features that are not finite.
    """
    settings, skipped = ground.settings, dict[str, str]()
    rows = ground.rows("test", min(settings.images, MOST_PAIRS))
    images = torch.cat(list(ground.images("test", rows)))
    few = images[torch.linspace(0, len(images) - 1, min(len(images), MOST_LOCAL)).long()]
    results: Record = {}
    for name, (function, kappa) in _representations(ground).items():
        found: Record = {"kappa": kappa, "pairs": {}}
        for kind, pairs in _pairs(ground, rows, images):
            try:
                found["pairs"][kind] = _bounds(ground, function, pairs, kappa, f"{name}: {kind}")
            except (DataError, UsageError) as error:
                skipped[f"{name}: {kind}"] = str(error)
        try:
            found["local"] = _local(ground, function, few, name)
        except (DataError, UsageError) as error:
            skipped[f"{name}: local slope"] = str(error)
        results[name] = found
    return {"protocol": _protocol(ground), "results": results, "skipped": skipped}


def _representations(ground: Ground) -> dict[str, tuple[Unit, float]]:
    """By name: images to unit rows, and the concentration of the channel about them."""

    def unit_features(name: str) -> Unit:
        return lambda x: F.normalize(ground.encode(name, x), dim=1)

    found = {name: (unit_features(name), ground.kappa(name)) for name in (ENCODER, RANDOM)}
    method = ground.method
    if method is not None:
        with torch.no_grad():
            channel = method.channel(ground.features(ENCODER, "test")[:2])
        if isinstance(channel, VonMisesFisherChannel):

            def mean_direction(x: Tensor) -> Tensor:
                made = method.channel(ground.encode(ENCODER, x))
                assert isinstance(made, VonMisesFisherChannel)  # as it was a moment ago
                return made.mean_direction

            found[HEAD] = (mean_direction, channel.kappa)
    return found


def _pairs(ground: Ground, rows: Tensor, images: Tensor) -> Iterator[tuple[str, Pairs]]:
    """Pairs of images by kind, in the order of the rows."""
    views = torch.cat(list(ground.view_pixels("test", rows, 2)))  # [N, 2, 3, S, S]
    yield "views", Pairs(views[:, 0], views[:, 1])
    for kind in CORRUPTIONS:
        yield kind, Pairs(images, corrupt(images, kind, SEVERITY, rows.to(images.device), ground.settings.seed))
    if len(images) > 1:
        yield "interpolation", Pairs(images, interpolate(images, images.roll(1, 0), T))


@torch.no_grad()
def _bounds(ground: Ground, function: Unit, pairs: Pairs, kappa: float, what: str) -> Record:
    size, total = ground.settings.batch_size, len(pairs.first)
    means: list[tuple[Tensor, Tensor]] = []
    for start in range(0, total, size):
        part = slice(start, start + size)
        means.append((function(pairs.first[part]), function(pairs.second[part])))
        ground.count(what, min(start + size, total), total)
    first, second = (torch.cat(parts) for parts in zip(*means, strict=True))
    bounds = pair_bounds(first, second, input_distance(pairs.first, pairs.second), kappa)
    return {
        "images": len(bounds.rho),
        "equal_images_left_out": total - len(bounds.rho),
        "rho": _summary(ground, bounds.rho),
        "distance": _summary(ground, bounds.distance),
        "slope": _summary(ground, bounds.ratio("distance")),
        "per_image": pack_floats(bounds.ratio("distance").cpu().numpy()),
        **{f"{of}_bits": _summary(ground, _bits(bounds, of)) for of in ("kl", "sup")},
        **{f"{of}_bits_per_rho": _summary(ground, _bits(bounds, of) / bounds.rho) for of in ("kl", "sup")},
    }


def _bits(bounds: PairBounds, of: str) -> Tensor:
    nats: Tensor = getattr(bounds, of)
    return nats / math.log(2)


def _local(ground: Ground, function: Unit, images: Tensor, name: str) -> Record:
    at_once = max(1, LOCAL_VALUES // images[0].numel())
    slopes, changes = [], []
    for part in torch.split(images, at_once):
        sigma, change = local_slope(function, part, STEPS)
        slopes.append(sigma)
        changes.append(change)
        ground.count(f"{name}: slopes", sum(map(len, slopes)), len(images))
    slope, change = torch.cat(slopes), torch.cat(changes)
    return {
        "images": len(slope),
        "slope": _summary(ground, slope),
        "last_step": summary(change),
        "per_image": pack_floats(slope.cpu().numpy()),
    }


def _summary(ground: Ground, values: Tensor) -> Record:
    """Extremes and quantiles, and the mean with its interval."""
    settings = ground.settings
    mean = asdict(bootstrap_mean(values.cpu().numpy(), settings.resamples, settings.seed))
    return {**summary(values), "mean": mean}


def _protocol(ground: Ground) -> Record:
    return {
        "inputs": "rho = ||x - x'||_2 over all pixels and channels, values in [0, 1]",
        "features": "unit rows of the backbone's features, distance ||mu - mu'||_2; "
        f"{HEAD!r}: mean direction of the trained von Mises-Fisher head",
        "channel": "vMF(mu, kappa): kl = kappa A_d(kappa) (1 - mu^T mu'), sup = kappa ||mu - mu'||",
        "pairs": f"at most {MOST_PAIRS} test images; views: two random views of an image; corruptions: severity "
        f"{SEVERITY}; interpolation: {T:g} of the way to another test image",
        "local": f"largest singular value of the Jacobian at at most {MOST_LOCAL} images, from {STEPS} products with "
        "J^T J; last_step: the share by which the last one raised it",
        "bound": "every slope is a lower bound of the Lipschitz constant; no upper bound is known",
    }

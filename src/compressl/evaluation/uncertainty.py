"""Whether a representation knows what it does not know: calibration, errors, corruptions, other data, people's doubt.

Asked of the encoder and of a random encoder, whose linear probes give the probabilities. Scores are higher where an
image is less certain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

import torch
from torch import Tensor

from compressl.errors import DataError, UsageError
from compressl.evaluation.ground import ENCODER, RANDOM, Ground
from compressl.evaluation.scores import BANK, Scorer, Scores, corrupted_scores, other_data
from compressl.evaluation.votes import soft_labels
from compressl.measures import calibration, ranking, uncertainty
from compressl.measures.intervals import bootstrap_mean
from compressl.measures.linear import fit
from compressl.measures.packing import pack_bits, pack_floats
from compressl.randomness import generator

COVERAGES = torch.arange(1, 21, dtype=torch.float64) / 20
QUANTILES = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)

Record = dict[str, Any]
T = TypeVar("T")


def measure(ground: Ground) -> Record:
    """Uncertainty of the encoder and of a random encoder. What cannot be had stands under ``skipped``, in sentences.

    Raises:
        DataError: features that are not finite, or too few training images to hold some out.
    """
    if len(ground.train.labels) < 10:
        raise DataError(f"There are {len(ground.train.labels)} training images.", "Calibration needs at least 10.")
    settings, skipped = ground.settings, dict[str, str]()
    rows = ground.rows("test", settings.images)
    votes = _attempt(skipped, "soft labels", soft_labels, ground, settings.soft_labels)
    others = {
        name: _attempt(skipped, f"other data: {name}", other_data, ground, path)
        for name, _, path in (pair.partition("=") for pair in settings.transfer)
    }
    scorers = {name: Scorer.of(ground, name) for name in (ENCODER, RANDOM)}
    corrupted = corrupted_scores(ground, rows, scorers)
    results: Record = {}
    for name, scorer in scorers.items():
        one = _Measured(ground, name, scorer, rows, skipped)
        results[name] = {
            "accuracy": float(one.correct.double().mean()),
            "calibration": one.calibration(),
            "views": one.views(),
            "errors": one.errors(),
            "severity": {kind: one.severity(kind, levels) for kind, levels in corrupted[name].items()},
            "other_data": {other: one.separation(other, found) for other, found in others.items() if found is not None},
            "human": one.human(votes) if votes is not None else None,
        }
        if name == ENCODER:
            results[name]["per_image"] = one.per_image(votes)
    return {"protocol": _protocol(ground, rows), "coverage": COVERAGES.tolist(), "results": results, "skipped": skipped}


class _Measured:
    """One representation's logits, scores and errors on the test images, on the CPU."""

    def __init__(self, ground: Ground, name: str, scorer: Scorer, rows: Tensor, skipped: dict[str, str]) -> None:
        self.ground, self.name, self.scorer, self.rows, self.skipped = ground, name, scorer, rows, skipped
        features = ground.features(name, "test")
        self.dim = features.shape[1]
        self.labels = ground.labels("test").cpu()
        self.logits = scorer.probe.logits(features).detach().cpu()
        self.correct = self.logits.argmax(1) == self.labels
        views = ground.view_features(name, "test", rows, ground.settings.views)
        self.scores = scorer(features) | {"dispersion": uncertainty.dispersion(views)}
        self.temperature, self.held_out = _temperature(ground, name)

    def of_rows(self, score: str) -> Tensor:
        """The scores of the images of ``rows``; dispersion, which needs views, is of these alone."""
        return self.scores[score] if score == "dispersion" else self.scores[score][self.rows]

    def having(self, score: str, values: Tensor) -> Tensor:
        """Of values of all test images those of the images that have this score."""
        return values[self.rows] if score == "dispersion" else values

    def attempt(self, part: str, function: Callable[..., T], *arguments: Any) -> T | None:
        return _attempt(self.skipped, f"{self.name}: {part}", function, *arguments)

    def mean(self, values: Tensor) -> Record:
        settings = self.ground.settings
        return asdict(bootstrap_mean(values.cpu().numpy(), settings.resamples, settings.seed))

    def calibration(self) -> Record:
        ends = (calibration.LOWEST, calibration.HIGHEST)
        if any(abs(self.temperature / end - 1) < 1e-6 for end in ends):
            self.skipped[f"{self.name}: temperature"] = (
                f"The {self.held_out} held-out training images do not settle a temperature: it stands at the end of "
                f"what is tried, {self.temperature:g}. What is given after scaling says nothing."
            )
        return {
            "temperature": self.temperature,
            "held_out_images": self.held_out,
            "before": self._calibration(self.logits),
            "after": self._calibration(self.logits / self.temperature),
        }

    def _calibration(self, logits: Tensor) -> Record:
        draws = {"resamples": self.ground.settings.resamples, "seed": self.ground.settings.seed}
        confidence = calibration.confidence(logits)
        bins = calibration.reliability(confidence, self.correct)
        found: Record = {"confidence": float(confidence.mean())}
        for key, mass in (("ece", False), ("ece_equal_mass", True)):
            found[key] = asdict(calibration.calibration_error(confidence, self.correct, equal_mass=mass, **draws))
            found[f"{key}_floor"] = calibration.calibration_floor(confidence, equal_mass=mass)
        return found | {
            "brier": self.mean(calibration.brier(logits, self.labels)),
            "nll_bits": self.mean(calibration.negative_log_likelihood(logits, self.labels)),
            "bins": {key: getattr(bins, key).tolist() for key in ("low", "high", "confidence", "accuracy", "count")},
        }

    def views(self) -> Record:
        resultant = 1 - self.scores["dispersion"]
        middle = resultant.quantile(QUANTILES)  # a concentration rises with its resultant: their quantiles agree
        kappa, approximate = (
            dict(zip((f"{q:g}" for q in QUANTILES.tolist()), f(middle, self.dim).tolist(), strict=True))
            for f in (uncertainty.concentration, uncertainty.approximate_concentration)
        )
        return {
            "images": len(self.rows),
            "views": self.ground.settings.views,
            "resultant_length": self.mean(resultant),
            "kappa_quantiles": kappa,
            "kappa_quantiles_banerjee": approximate,
        }

    def errors(self) -> Record:
        """By score, how well it tells errors from right answers."""
        right = int(self.correct.sum())
        if right in (0, len(self.correct)):
            which = "right" if right else "wrong"
            sentence = f"Every test image is classified {which}: there is nothing to tell apart."
            self.skipped[f"{self.name}: detection of errors"] = sentence
        return {score: self.attempt(f"errors by {score}", self._errors, score) for score in self.scores}

    def _errors(self, score: str) -> Record:
        settings, values, wrong = self.ground.settings, self.scores[score], self.having(score, ~self.correct)
        curve, both = ranking.selective(values, wrong), bool(wrong.any()) and not bool(wrong.all())
        return {
            "images": len(values),
            "auroc": asdict(ranking.auroc(values, wrong)) if both else None,
            "fpr95": ranking.false_positive_rate(values, wrong) if both else None,
            "aurc": asdict(ranking.area_interval(values, wrong, settings.resamples, settings.seed)),
            "excess_aurc": curve.excess,
            "risk": curve.at(COVERAGES).tolist(),
        }

    def severity(self, kind: str, levels: list[Scores]) -> Record:
        """By score, its means at severities 0 to 5, and the mean over images of its rank correlation with severity."""
        return {score: self.attempt(f"{score} under {kind}", self._severity, score, levels) for score in levels[0]}

    def _severity(self, score: str, levels: list[Scores]) -> Record:
        table = torch.stack([self.of_rows(score), *(level[score] for level in levels)], 1).double()  # [M, 6]
        return {"trend": self.mean(ranking.trend(table)), "mean": table.mean(0).tolist()}

    def separation(self, name: str, other: Ground) -> Record:
        """By score, how well it tells other data from the own test images of ``rows``."""
        every = torch.arange(len(other.test.indices))
        views = other.view_features(self.name, "test", every, self.ground.settings.views)
        theirs = self.scorer(other.features(self.name, "test")) | {"dispersion": uncertainty.dispersion(views)}
        found = {
            score: self.attempt(f"{score} of {name}", _separation, self.of_rows(score), values)
            for score, values in theirs.items()
        }
        return {"images": len(every), "own_images": len(self.rows), "scores": found}

    def human(self, votes: Tensor) -> Record:
        """Against people's votes, float64 [N, C]."""
        doubt = calibration.entropy(votes)
        found: Record = {
            "images": len(votes),
            "majority_is_label": float((votes.argmax(1) == self.labels).double().mean()),
            "entropy_bits": self.mean(doubt),
        }
        for key, temperature in (("before", 1.0), ("after", self.temperature)):
            crossed = calibration.cross_entropy(self.logits / temperature, votes)
            found[key] = {"cross_entropy_bits": self.mean(crossed), "kl_bits": self.mean(crossed - doubt)}
        correlated = {
            score: self.attempt(f"{score} and people's doubt", ranking.spearman, values, self.having(score, doubt))
            for score, values in self.scores.items()
        }
        return found | {"correlation": {score: r and asdict(r) for score, r in correlated.items()}}

    def per_image(self, votes: Tensor | None) -> Record:
        """What comparisons of two runs image by image need; dispersion is of the images of ``rows``."""
        values = {
            "nll_bits": calibration.negative_log_likelihood(self.logits, self.labels),
            "brier": calibration.brier(self.logits, self.labels),
            **self.scores,
        }
        if votes is not None:
            values["kl_bits"] = calibration.cross_entropy(self.logits, votes) - calibration.entropy(votes)
        return {"correct": pack_bits(self.correct.numpy()), **{k: pack_floats(v.numpy()) for k, v in values.items()}}


def _attempt(skipped: dict[str, str], part: str, function: Callable[..., T], *arguments: Any) -> T | None:
    """What a function gives, or None and its complaint under ``skipped``."""
    try:
        return function(*arguments)
    except (DataError, UsageError) as error:
        skipped[part] = str(error)
        return None


def _separation(own: Tensor, theirs: Tensor) -> Record:
    values = torch.cat([own.double(), theirs.double()])
    foreign = torch.arange(len(values)) >= len(own)
    return {
        "auroc": asdict(ranking.auroc(values, foreign)),
        "fpr95": ranking.false_positive_rate(values, foreign),
    }


def _temperature(ground: Ground, name: str) -> tuple[float, int]:
    """The temperature of a probe of four fifths of the training images on the other fifth, and how many that is."""
    features, labels = ground.features(name, "train"), ground.labels("train")
    order = torch.randperm(len(labels), generator=generator("temperature split", ground.settings.seed))
    held, kept = (part.to(labels.device) for part in (order[: len(order) // 5], order[len(order) // 5 :]))
    whole = ground.probe(name)
    probe = fit(features[kept], labels[kept], ground.classes, whole.weight_decay)
    return calibration.fit_temperature(probe.logits(features[held]), labels[held]), len(held)


def _protocol(ground: Ground, rows: Tensor) -> Record:
    """What the figures mean, in words."""
    settings = ground.settings
    return {
        "probabilities": "softmax of the linear probe of all training images",
        "temperature": "fitted on a held-out fifth of the training images to a probe of the other four fifths with the "
        "same weight decay, then used for the probe of all of them",
        "ece": f"{calibration.BINS} bins of equal width; equal_mass: of equally many images; floor: what a perfectly "
        "calibrated probe with these confidences would show",
        "knn_distance": f"1 - cosine to neighbour {settings.k} among at most {BANK} training images",
        "dispersion": f"1 - mean resultant length of {settings.views} views, as trained with, of {len(rows)} images",
        "code": f"{settings.draws} draws of the method's code; their probe is of one drawn code of each of at most "
        f"{BANK} training images",
        "severity": f"corruptions of {len(rows)} test images; trend: mean over images of Spearman's correlation",
        "other_data": f"at most {settings.images} of their test images against {len(rows)} own",
        "fpr95": "share of errors (of other data) that pass where 95 % of right answers (own images) pass",
        "intervals": "95 %; AUROC: DeLong; correlation with people's doubt: Fisher, Bonett and Wright; else bootstrap "
        "over test images, of ece moved to have the figure as its mean",
    }

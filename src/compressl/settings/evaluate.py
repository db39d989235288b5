"""Everything `compressl evaluate` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from compressl.settings.options import check_device, check_seed
from compressl.settings.spelling import suggestion

MEASURES = (
    "accuracy",
    "robustness",
    "information",
    "geometry",
    "lipschitz",
    "uncertainty",
    "transfer",
    "fine-tuning",
)


@dataclass(frozen=True)
class EvaluateSettings:
    """Measure what a representation keeps, beside raw pixels and a random encoder."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder of a finished `compressl pretrain`, a .safetensors, timm/<name> with published weights, or
    random/<name> for one without training."""
    data: str
    """Labelled images: a folder with class folders, Parquet with labels, digits, cifar10, ..."""
    test: str | None = None
    """Test images, if --data does not bring its own. Default: its test split, else a random fifth of each class."""
    measures: tuple[str, ...] = ("accuracy", "robustness", "information", "geometry", "lipschitz", "uncertainty")
    """What to measure: accuracy, robustness, information, geometry, lipschitz, uncertainty, transfer, fine-tuning, or
    all. Transfer is among them whenever --transfer is given; fine-tuning takes as long as a training."""
    transfer: tuple[str, ...] = ()
    """Other labelled images to measure accuracy on, each as name=path."""
    shift: tuple[str, ...] = ()
    """Labelled images of the same classes from elsewhere, each as name=path, or name=path@classes.json where the names
    of classes differ."""
    baseline: Path | None = None
    """evaluation.json of another run: corruption errors are given relative to its own."""
    soft_labels: Path | None = None
    """.npz or .npy [N, C] of human votes for the test images, in their order (CIFAR-10H)."""
    images: int = 2000
    """Test images used by measures that need views or corruptions of them, at most."""
    views: int = 8
    """Random views of each such image."""
    kappa: float | None = None
    """Concentration of the von Mises-Fisher channel through which deterministic features are seen. Default: that at
    which the codes of directions at right angles lie 10 bits (KL) apart, whatever the dimension."""
    shots: tuple[int, ...] = (1, 3, 5, 10, 30)
    """Labels per class of the few-label curve."""
    fractions: tuple[float, ...] = (0.01, 0.1)
    """Shares of the training labels of the few-label curve."""
    draws: int = 5
    """Draws of few labels."""
    k: int = 20
    """Neighbours that vote in the kNN classifier."""
    temperature: float = 0.07
    """Votes weigh exp(cosine / temperature) (Wu et al. 2018, section 3.4)."""
    weight_decays: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    """Tried for the linear probe; one is chosen on a held-out fifth of the training images."""
    limit: int | None = None
    """Use N training images, drawn per class."""
    resamples: int = 1000
    """Bootstrap resamples of the test images, for the 95 % intervals."""
    batch_size: int = 512
    """Images per forward pass."""
    seed: int = 0
    """Of splits, the random encoder and the bootstrap."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "bf16", "fp32"] = "fp32"
    """Of the forward pass; the measures are always fp32."""
    architecture: str | None = None
    """Of a file of weights that has no encoder.json beside it: resnet18, 34, 50, 101, 152 or timm/<name>."""
    size: int | None = None
    """Side of the images in pixels, for timm/<name> and random/<name>. Default: the model's own, else the images'."""
    cache: Path | None = None
    """Where decoded images and features are kept. Default: $COMPRESSL_CACHE, else ~/.cache/compressl."""
    out: Path | None = None
    """Where to write the result. Default: evaluation.json in the run folder."""

    def selected(self) -> list[str]:
        """The measures that were asked for, in the order in which they are taken."""
        every = "all" in self._names()
        wanted = {*self._names(), *(["transfer"] if self.transfer else [])}
        return [name for name in MEASURES if name in wanted or (every and (name != "transfer" or self.transfer))]

    def _names(self) -> list[str]:
        return [name for given in self.measures for name in given.split(",") if name]

    def check(self) -> list[str]:
        problems = []
        if self.k < 1:
            problems.append(f"k must be at least 1; it is {self.k}.")
        if not self.temperature > 0:
            problems.append(f"temperature must be greater than 0; it is {self.temperature}.")
        if not self.weight_decays or min(self.weight_decays) < 0:
            problems.append("weight-decays needs at least one value, none negative.")
        if self.limit is not None and self.limit < 10:
            problems.append(f"limit must be at least 10; it is {self.limit}.")
        if self.resamples < 100:
            problems.append(
                f"resamples must be at least 100 for an interval to mean something; it is {self.resamples}."
            )
        for name in self._names():
            if name not in (*MEASURES, "all"):
                near = suggestion(name, (*MEASURES, "all"))
                problems.append(f"measures: {name!r} is unknown.{near} Known: {', '.join(MEASURES)}, all.")
        if not self._names():
            problems.append(f"measures needs at least one of {', '.join(MEASURES)}, all.")
        if "transfer" in self._names() and not self.transfer:
            problems.append("measures: transfer needs --transfer name=path.")
        for flag in ("transfer", "shift"):
            names = [pair.partition("=")[0] for pair in getattr(self, flag)]
            if not all(name and path for name, _, path in (pair.partition("=") for pair in getattr(self, flag))):
                problems.append(f"{flag} takes name=path pairs; it is {' '.join(getattr(self, flag))!r}.")
            elif len(set(names)) < len(names):
                problems.append(f"{flag}: the same name is given twice.")
        for flag, least in (("images", 50), ("views", 2), ("draws", 2)):
            if getattr(self, flag) < least:
                problems.append(f"{flag} must be at least {least}; it is {getattr(self, flag)}.")
        if self.kappa is not None and not self.kappa > 0:
            problems.append(f"kappa must be greater than 0; it is {self.kappa}.")
        if any(shots < 1 for shots in self.shots):
            problems.append("shots are numbers of labels per class, at least 1.")
        if not all(0 < share <= 1 for share in self.fractions):
            problems.append("fractions are shares of the training labels, above 0 and at most 1.")
        if self.size is not None and self.size < 8:
            problems.append(f"size must be at least 8; it is {self.size}.")
        problems += check_device(self.device) + check_seed(self.seed)
        if self.batch_size < 1:
            problems.append(f"batch_size must be at least 1; it is {self.batch_size}.")
        return problems

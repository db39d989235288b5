"""What is measured, and on what: the one thing that every measure is given."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from compressl.corruptions import corrupt
from compressl.data import PackedImages, Source, default_cache, pack
from compressl.errors import DataError
from compressl.evaluation import features
from compressl.evaluation.feature_cache import FeatureCache, hash_of_rows, hash_of_weights
from compressl.evaluation.labelled import Labelled, per_class
from compressl.measures.channels import concentration_for
from compressl.measures.linear import LinearProbe, fit_best
from compressl.methods import Method
from compressl.models import EncoderCard, create_encoder
from compressl.settings.evaluate import EvaluateSettings
from compressl.settings.views import ViewRecipe, ViewsSettings

ORTHOGONAL_BITS = 10.0  # keeps bounds of some thousand images below their ceilings
ENCODER, RANDOM, PIXELS = "encoder", "random encoder", "raw pixels"


@dataclass
class Ground:
    """Three representations of training and test images: an encoder's, a random encoder's, and the raw pixels.

    Everything that measures ask for is computed once: in memory, and what costs forward passes on disk too. Features
    are float32; the encoders are in evaluation mode.
    """

    settings: EvaluateSettings
    device: torch.device
    card: EncoderCard
    train: Labelled
    test: Labelled
    modules: dict[str, nn.Module | None]
    """By representation; None stands for raw pixels."""
    class_names: list[str]
    split: str = ""
    """How training and test images were told apart, in words."""
    method: Method | None = None
    """The encoder with the heads that it was trained with, where they are known."""
    views: ViewsSettings = field(default_factory=ViewsSettings)
    """The views that the encoder was trained with."""
    history: list[tuple[int, Callable[[], Method]]] = field(default_factory=list)
    """Steps of the training with a way to the method as it was then, oldest first."""
    advance: Callable[[str, int, int], None] = lambda what, done, total: None

    def __post_init__(self) -> None:
        self._memory: dict[tuple[str, ...], Tensor] = {}
        self._probes: dict[str, LinearProbe] = {}
        self._weights: dict[str, str] = {}
        self._cache = FeatureCache((self.settings.cache or default_cache()) / "features")
        for module in (*self.modules.values(), self.method):
            if module is not None:
                module.to(self.device).eval()

    @staticmethod
    def of(
        encoder: nn.Module,
        card: EncoderCard,
        train: Labelled,
        test: Labelled,
        settings: EvaluateSettings,
        device: torch.device,
        *,
        class_names: list[str] | None = None,
        split: str = "",
        method: Method | None = None,
        views: ViewsSettings | None = None,
        history: list[tuple[int, Callable[[], Method]]] | None = None,
        advance: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> Ground:
        """The ground of an encoder, beside a random encoder of the same architecture and raw pixels.

        Raises:
            DataError: a test class is absent from the training images.
        """
        classes = int(max(train.labels.max(), test.labels.max())) + 1
        names = class_names or [str(c) for c in range(classes)]
        absent = sorted(set(test.labels.tolist()) - set(train.labels.tolist()))
        if absent:
            listing = ", ".join(names[c] if c < len(names) else str(c) for c in absent)
            raise DataError(
                f"Some test images belong to classes that no training image shows: {listing}.",
                "Raise --limit, or give training images of these classes.",
            )
        # with residual branches that start at zero, most of an untrained ResNet would be switched off: no fair opponent
        untrained = create_encoder(replace(card.settings(), zero_init=False), card.size, seed=settings.seed)
        modules = {ENCODER: encoder, RANDOM: untrained, PIXELS: None}
        return Ground(
            settings, device, card, train, test, modules, names, split, method, views or ViewsSettings(),
            history or [], advance,
        )  # fmt: skip

    @property
    def classes(self) -> int:
        return int(max(self.train.labels.max(), self.test.labels.max())) + 1

    def of_split(self, split: str) -> Labelled:
        """The images of "train" or "test"."""
        return {"train": self.train, "test": self.test}[split]

    def labels(self, split: str) -> Tensor:
        """Classes of the images of a split, int64 [N], on the device."""
        return torch.from_numpy(self.of_split(split).labels).to(self.device)

    def rows(self, split: str, count: int) -> Tensor:
        """At most ``count`` positions of a split with all classes in turn, int64, in rising order."""
        labels = self.of_split(split).labels
        return torch.from_numpy(per_class(labels, min(count, len(labels)), self.settings.seed))

    def kappa(self, name: str) -> float:
        """Concentration of the stated channel about a representation's directions."""
        if self.settings.kappa is not None:
            return self.settings.kappa
        side = min(self.card.size, features.PIXEL_SIDE)
        dim = self.card.num_features if self.modules[name] is not None else 3 * side**2
        return concentration_for(dim, ORTHOGONAL_BITS)

    def pack(self, source: Source, what: str) -> PackedImages:
        """Other images, decoded for this encoder's views."""
        return pack(
            source,
            view_size=self.card.size,
            cache=self.settings.cache or default_cache(),
            progress=lambda done, total: self.count(f"{what}: decoding", done, total),
        )

    def count(self, what: str, done: int, total: int) -> None:
        """Say how far a piece of work is."""
        self.advance(what, done, total)

    def images(self, split: str, rows: Tensor | None = None) -> Iterator[Tensor]:
        """The deterministic view of each image, batch by batch: float32 [B, 3, S, S] in [0, 1]."""
        images = self.of_split(split)
        indices = images.indices if rows is None else images.indices[rows.cpu().numpy()]
        return features.central_views(images.packed, indices, self.card.size, self.settings.batch_size, self.device)

    def encode(self, name: str, images: Tensor) -> Tensor:
        """Features of images given as pixels, [B, 3, S, S] in [0, 1] -> float32 [B, F]; gradients pass."""
        module = self.modules[name]
        if module is None:
            side = min(self.card.size, features.PIXEL_SIDE)
            return features.flat(F.interpolate(images, size=(side, side), mode="bilinear", antialias=True))
        return self._forward(module, images)

    def _forward(self, module: nn.Module, images: Tensor) -> Tensor:
        return features.forward(module, images, self.card.mean, self.card.std, self.settings.precision)

    def features(self, name: str, split: str) -> Tensor:
        """Features of all images of a split, float32 [N, F], on the device.

        Raises:
            DataError: they are not finite.
        """
        images, memory = self.of_split(split), ("features", name, split)
        if memory not in self._memory:
            module = self.modules[name]
            if module is None:
                found = features.raw_pixels(
                    images.packed, images.indices, self.card.size, self.device, self.settings.batch_size
                )
            else:
                encode, what = partial(self._forward, module), f"{name}: features"
                parts = self._key(name, images, images.indices, "central view")
                found = self._cache.get(
                    parts, lambda: self._encode_all(encode, self.images(split), what, len(images.labels))
                ).to(self.device)
            self._memory[memory] = features.finite(found, name)
        return self._memory[memory]

    def features_of(self, module: nn.Module, split: str, rows: Tensor) -> Tensor:
        """Features of some images by an encoder that is not of this ground, [M, F]; kept nowhere."""
        return self._encode_all(partial(self._forward, module), self.images(split, rows), "features", len(rows))

    def probe(self, name: str) -> LinearProbe:
        """The linear probe of all training images, its weight decay chosen on a held-out fifth of them."""
        if name not in self._probes:
            decays, seed = self.settings.weight_decays, self.settings.seed
            self._probes[name] = fit_best(
                self.features(name, "train"), self.labels("train"), self.classes, decays, seed
            )
        return self._probes[name]

    def view_features(
        self, name: str, split: str, rows: Tensor, copies: int, recipe: ViewRecipe | None = None
    ) -> Tensor:
        """Features of random views of some images, float32 [M, copies, F], on the device.

        Args:
            rows: positions of the images in their split, int64 [M].
            recipe: of the views; default: those of the training, in turn.
        """
        images = self.of_split(split)
        indices = images.indices[rows.cpu().numpy()]
        views = f"{copies} views {self._recipes(recipe)} seed {self.settings.seed}"
        parts = self._key(name, images, indices, views)
        memory = ("views", *parts)
        if memory not in self._memory:

            def compute() -> Tensor:
                return self._encode_views(partial(self.encode, name), f"{name}: views", split, rows, copies, recipe)

            found = compute() if self.modules[name] is None else self._cache.get(parts, compute).to(self.device)
            self._memory[memory] = features.finite(found, name)
        return self._memory[memory]

    def view_features_of(self, module: nn.Module, split: str, rows: Tensor, copies: int) -> Tensor:
        """The same by an encoder that is not of this ground; kept nowhere."""
        return self._encode_views(partial(self._forward, module), "views", split, rows, copies, None)

    def corrupted_features(self, name: str, split: str, rows: Tensor, kind: str, severity: int) -> Tensor:
        """Features of some images under a corruption of :mod:`compressl.corruptions`, float32 [M, F], on the device."""
        images = self.of_split(split)

        def compute() -> Tensor:
            changed = (
                corrupt(batch, kind, severity, keys.to(batch.device), self.settings.seed)
                for batch, keys in zip(
                    self.images(split, rows), torch.split(rows, self.settings.batch_size), strict=True
                )
            )
            return self._encode_all(partial(self.encode, name), changed, f"{name}: {kind} {severity}", len(rows))

        # an image is known to its corruption by its position in the split
        transform = f"{kind} {severity} seed {self.settings.seed} of {hash_of_rows(rows.cpu().numpy())}"
        parts = self._key(name, images, images.indices[rows.cpu().numpy()], transform)
        return self._cache.get(parts, compute).to(self.device)

    def view_pixels(self, split: str, rows: Tensor, copies: int, recipe: ViewRecipe | None = None) -> Iterator[Tensor]:
        """The random views of :meth:`view_features` themselves, batch by batch: float32 [b, copies, 3, S, S]."""
        images = self.of_split(split)
        return features.random_views(
            images.packed, images.indices[rows.cpu().numpy()], copies, self._recipes(recipe), self.settings.seed,
            self.settings.batch_size, self.device,
        )  # fmt: skip

    def copy_of(self, name: str) -> nn.Module:
        """An encoder to change at will.

        Raises:
            KeyError: raw pixels have none.
        """
        module = self.modules[name]
        if module is None:
            raise KeyError(name)
        return copy.deepcopy(module)

    def _recipes(self, recipe: ViewRecipe | None) -> tuple[ViewRecipe, ...]:
        chosen = self.views.resolve(self.card.size)[:2] if recipe is None else (recipe,)
        return tuple(replace(view, size=self.card.size) for view in chosen)

    def _encode_views(
        self,
        encode: Callable[[Tensor], Tensor],
        what: str,
        split: str,
        rows: Tensor,
        copies: int,
        recipe: ViewRecipe | None,
    ) -> Tensor:
        def encode_copies(views: Tensor) -> Tensor:
            return encode(views.flatten(0, 1)).view(len(views), copies, -1)

        return self._encode_all(encode_copies, self.view_pixels(split, rows, copies, recipe), what, len(rows))

    def _encode_all(
        self, encode: Callable[[Tensor], Tensor], batches: Iterable[Tensor], what: str, total: int
    ) -> Tensor:
        return features.encode_batches(encode, batches, lambda done: self.count(what, done, total))

    def _key(self, name: str, images: Labelled, indices: NDArray[np.int64], transform: str) -> tuple[str, ...]:
        """Everything that features of these images depend on."""
        module = self.modules[name]
        if name not in self._weights:
            self._weights[name] = hash_of_weights(module) if module is not None else name
        card = {k: v for k, v in asdict(self.card).items() if k in ("size", "mean", "std")}
        place = f"{self.device.type} {self.settings.precision}"
        return (self._weights[name], transform, str(card), images.packed.fingerprint, hash_of_rows(indices), place)

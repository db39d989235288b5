"""How images are seen: the augmentation of each view, as numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from compressl.errors import UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

STAGES = 5  # sizes of views that grow

RecipeName = Literal["auto", "small", "byol", "simclr", "crop", "symbols"]


@dataclass(frozen=True)
class ViewRecipe:
    """The random draw of one view, in the order in which it is applied. Definitions are torchvision's.

    >>> ViewRecipe(size=32).min_scale
    0.08
    """

    size: int = 224  # side of the square view, pixels
    min_scale: float = 0.08  # share of the image's area that a crop covers, at least
    max_scale: float = 1.0
    min_ratio: float = 3 / 4  # width / height of a crop, log-uniform
    max_ratio: float = 4 / 3
    flip: float = 0.5  # probability of a horizontal flip
    jitter: float = 0.8  # probability of color jitter; the next four are its ranges
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1  # of a full turn
    grayscale: float = 0.2  # probability
    blur: float = 0.0  # probability of a Gaussian blur
    blur_min_sigma: float = 0.1  # pixels
    blur_max_sigma: float = 2.0
    solarize: float = 0.0  # probability of inverting the pixels at or above one half
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def check(self) -> list[str]:
        """What is impossible about these numbers, a sentence each."""
        problems = []
        for name in ("flip", "jitter", "grayscale", "blur", "solarize"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(f"{name} is a probability, between 0 and 1; it is {getattr(self, name)}.")
        if self.size < 1:
            problems.append(f"size is a number of pixels, at least 1; it is {self.size}.")
        if not 0 < self.min_scale <= self.max_scale <= 1:
            problems.append(f"0 < min_scale <= max_scale <= 1 must hold; they are {self.min_scale}, {self.max_scale}.")
        if not 0 < self.min_ratio <= self.max_ratio:
            problems.append(f"0 < min_ratio <= max_ratio must hold; they are {self.min_ratio}, {self.max_ratio}.")
        for name in ("brightness", "contrast", "saturation"):
            if getattr(self, name) < 0:
                problems.append(f"{name} is a range around 1, at least 0; it is {getattr(self, name)}.")
        if not 0 <= self.hue <= 0.5:
            problems.append(f"hue is a share of a turn, between 0 and 0.5; it is {self.hue}.")
        if not 0 < self.blur_min_sigma <= self.blur_max_sigma:
            problems.append(
                "0 < blur_min_sigma <= blur_max_sigma must hold; they are "
                f"{self.blur_min_sigma}, {self.blur_max_sigma}."
            )
        return problems


@dataclass(frozen=True)
class ViewsSettings:
    """The views of an image: a named recipe, and what differs from it."""

    recipe: RecipeName = "auto"
    """auto: small up to 64 px, byol above. byol: two asymmetric views (BYOL, appendix B). simclr: two alike (SimCLR,
    appendix A). small: two alike without blur. crop: crop and flip alone. symbols: for writing and drawings, two alike
    with most of the colour taken away and nothing mirrored."""
    size: int | None = None
    """Side of a view in pixels. Default: that of images of one size up to 64 px, else 32, 64, 96 or 224."""
    start_size: int | None = None
    """Side of a view at the beginning: small views are cheap. It grows in equal steps, and the last fifth of the
    training has the full size. Default: the full size throughout."""
    min_scale: float | None = None
    """Smallest share of the area that a crop covers. Default: the recipe's."""
    grayscale: float | None = None
    """Probability of a grey view. Default: the recipe's."""
    jitter: float | None = None
    """Probability of color jitter. Default: the recipe's."""
    blur: float | None = None
    """Probability of a blurred view, for all views. Default: the recipe's."""
    solarize: float | None = None
    """Probability of a solarized view, for all views. Default: the recipe's."""
    max_scale: float | None = None
    """Largest share of the area that a crop covers. Default: the recipe's."""
    local: int = 0
    """Small crops beside the two views (multi-crop), for the methods that use them."""
    local_size: int | None = None
    """Side of a small crop in pixels. Default: three sevenths of a view (96 of 224), a multiple of 8."""
    local_min_scale: float = 0.05
    """Smallest share of the area that a small crop covers."""
    local_max_scale: float = 0.4
    """Largest share of the area that a small crop covers."""

    def check(self) -> list[str]:
        problems = [f"views: {problem}" for problem in self.resolve(32)[0].check()]
        if self.start_size is not None and self.start_size < 1:
            problems.append(f"views.start_size must be at least 1; it is {self.start_size}.")
        if self.local < 0:
            problems.append(f"views.local must not be negative; it is {self.local}.")
        elif self.local:
            problems += [f"views.local: {problem}" for problem in self.resolve(32)[-1].check()]
        return problems

    def resolve(self, size: int) -> tuple[ViewRecipe, ...]:
        """One recipe per view, for images whose views are ``size`` pixels wide: two views, then the small crops."""
        size = size if self.size is None else self.size
        name = ("small" if size <= 64 else "byol") if self.recipe == "auto" else self.recipe
        names = ("min_scale", "max_scale", "grayscale", "jitter", "blur", "solarize")
        own = {n: v for n in names if (v := getattr(self, n)) is not None}
        views = tuple(replace(view, size=size, **own) for view in RECIPES[name])
        small = replace(
            views[0],
            size=max(8, round(size * 3 / 56) * 8) if self.local_size is None else self.local_size,
            min_scale=self.local_min_scale,
            max_scale=self.local_max_scale,
            # where the views differ: DINO's for small crops
            blur=views[0].blur if views[0].blur == views[1].blur else 0.5,
            solarize=views[0].solarize if views[0].solarize == views[1].solarize else 0.0,
        )
        return (*views, *[small] * self.local)

    def stages(self, size: int) -> tuple[tuple[ViewRecipe, ...], ...]:
        """The recipes of each part of the training, parts of equal length; the last is :meth:`resolve`.

        Progressive resizing: training cost falls with the square of the side (Tan and Le 2021, "EfficientNetV2",
        section 4; for learning without labels Cao and Wu 2021, "Rethinking Self-Supervised Learning: Small is
        Beautiful"). Small crops and blur shrink alike.

        Raises:
            UsageError: the first views would be larger than the last.

        >>> [recipes[0].size for recipes in ViewsSettings(start_size=16).stages(32)]
        [16, 20, 24, 28, 32]
        """
        final = self.resolve(size)
        full = final[0].size
        if self.start_size is None:
            return (final,)
        if self.start_size > full:
            raise UsageError(
                f"Views cannot grow from {self.start_size} to {full} px.",
                f"Give a --views.start-size of at most {full}, or a larger --views.size.",
            )
        shares = [(self.start_size + (full - self.start_size) * k / (STAGES - 1)) / full for k in range(STAGES)]
        return tuple(tuple(_shrunk(recipe, share) for recipe in final) for share in shares)


def _shrunk(recipe: ViewRecipe, share: float) -> ViewRecipe:
    return replace(
        recipe,
        size=max(1, round(recipe.size * share)),
        blur_min_sigma=recipe.blur_min_sigma * share,
        blur_max_sigma=recipe.blur_max_sigma * share,
    )


_CROP = ViewRecipe(jitter=0.0, grayscale=0.0)
_SMALL = ViewRecipe(min_scale=0.2, grayscale=0.1)  # ours for images up to 64 px: blur hides what little there is
_SIMCLR = ViewRecipe(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, blur=0.5)

_SYMBOL = ViewRecipe(  # ours: shape is what two views of a symbol should share; colour, polarity and place are not
    min_scale=0.7, flip=0.0, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5, grayscale=0.8, solarize=0.3
)

RECIPES: dict[str, tuple[ViewRecipe, ...]] = {
    "small": (_SMALL, _SMALL),
    "byol": (ViewRecipe(blur=1.0), ViewRecipe(blur=0.1, solarize=0.2)),
    "simclr": (_SIMCLR, _SIMCLR),
    "crop": (_CROP, _CROP),
    "symbols": (_SYMBOL, _SYMBOL),
}

"""Batched augmentation: a uint8 batch in, one float tensor per view out, on the device the batch is on.

Every image has a draw of its own, a pure function of (seed, epoch, view, index): an image is augmented alike alone, in
any batch, on any number of processes, after a resume. Operators are those of torchvision, which is not needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from compressl import randomness
from compressl.errors import UsageError
from compressl.settings.views import ViewRecipe
from compressl.views.blur import gaussian_blur
from compressl.views.color import color_jitter, grayscale, solarize
from compressl.views.fused import Fused
from compressl.views.parameters import ViewParameters, draw
from compressl.views.pipeline import apply, denormalize, normalize
from compressl.views.resample import center_boxes, resized_crop, store_boxes

__all__ = [
    "ViewParameters",
    "Views",
    "apply",
    "center_boxes",
    "color_jitter",
    "denormalize",
    "draw",
    "gaussian_blur",
    "grayscale",
    "normalize",
    "resized_crop",
    "solarize",
    "store_boxes",
]


@dataclass(frozen=True)
class Views:
    """The views of a batch, one per recipe; sizes may differ (multi-crop).

    Raises:
        UsageError: a recipe with impossible numbers, or none.

    >>> import torch
    >>> views = Views((ViewRecipe(size=32), ViewRecipe(size=16)), seed=0)
    >>> images = torch.randint(0, 256, (4, 48, 48, 3), dtype=torch.uint8)
    >>> geometry = torch.tensor([[48, 48], [48, 96], [300, 200], [48, 48]])
    >>> [list(view.shape) for view in views(images, geometry, torch.arange(4), epoch=0)]
    [[4, 3, 32, 32], [4, 3, 16, 16]]
    """

    recipes: tuple[ViewRecipe, ...]
    seed: int
    compile: bool = False
    """On a GPU, let torch.compile make few kernels of all operators. On a CPU it would be slower, and is not done."""
    _fused: Fused | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.recipes:
            raise UsageError("There is no view.", "Give at least one recipe.")
        for number, recipe in enumerate(self.recipes):
            if problems := recipe.check():
                raise UsageError(f"View {number}: {' '.join(problems)}")
        if self.compile:
            object.__setattr__(self, "_fused", Fused())

    def __call__(
        self,
        images: Tensor,
        geometry: Tensor,
        indices: Tensor,
        epoch: int,
        normalized: bool = True,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> list[Tensor]:
        """One float32 [N, 3, size, size] tensor per recipe, on the device of ``images``.

        Args:
            images: uint8 [N, H, W, 3], as stored.
            geometry: integer [N, 2], original heights and widths.
            indices: integer [N], of the images in their data set. On the CPU, as ``geometry``, they spare a GPU a wait.
            epoch: another epoch is another draw.
            normalized: False leaves the values in [0, 1].
            memory_format: of the views. ``torch.channels_last`` spares a network that wants it a pass over them.

        Raises:
            ValueError: a shape or type other than these.
        """
        draws = self.draw(geometry, indices, epoch)
        return [
            apply(images, geometry, parameters, recipe, normalized, memory_format, self._fused)
            for parameters, recipe in zip(draws, self.recipes, strict=True)
        ]

    def draw(self, geometry: Tensor, indices: Tensor, epoch: int) -> list[ViewParameters]:
        """The parameters of each view alone, for who wants to know or to condition on them."""
        return [
            draw(recipe, geometry, indices, randomness.key("view", self.seed, epoch, number))
            for number, recipe in enumerate(self.recipes)
        ]

    def try_compile(
        self, batch: int, height: int, width: int, device: torch.device, memory_format: torch.memory_format
    ) -> str | None:
        """Compile now, on black images [batch, height, width, 3]: None, or a sentence on why that is off.

        >>> Views((ViewRecipe(),), 0, compile=True).try_compile(1, 8, 8, torch.device("cpu"), torch.channels_last)
        'on a CPU the operators are faster as they are.'
        """
        if self._fused is None:
            return "it was not asked for."
        if device.type == "cpu":
            return "on a CPU the operators are faster as they are."
        images = torch.zeros(batch, height, width, 3, dtype=torch.uint8, device=device)
        self(images, torch.tensor([[height, width]]).expand(batch, 2), torch.arange(batch), 0, True, memory_format)
        return self._fused.problem

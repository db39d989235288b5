"""Encoded bytes to upright 8-bit RGB, with limits that are checked before anything is decoded.

What an image looks like after decoding, whatever it was before: height x width x 3, uint8, turned upright by its EXIF
orientation, transparency laid over white (what a page would show; dropping alpha would bring back hidden colours),
16-bit grey scaled so that 65535 becomes 255, the first frame of an animation.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

Pixels = NDArray[np.uint8]

# Raster formats that Pillow decodes itself. Left out on purpose: EPS, which starts Ghostscript, and the stubs that
# recognise a file (HDF5, GRIB, BUFR, MPEG, WMF) without being able to read it.
FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI", "TGA",
    "TIFF", "WEBP",
)  # fmt: skip

_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(Exception):
    """One image that cannot be used; the message is the reason, without the image's name."""


@dataclass(frozen=True)
class Limits:
    """What one image may cost at most."""

    pixels: int = (
        64_000_000  # height x width, from the header; Pillow's own limit (89 million, a warning) stays as it is
    )
    file_bytes: int = 256 * 2**20


LIMITS = Limits()


@cache
def extensions() -> frozenset[str]:
    """Lower-case file name endings of the formats that are read.

    >>> ".jpg" in extensions(), ".webp" in extensions(), ".eps" in extensions()
    (True, True, False)
    """
    return frozenset(end for end, name in Image.registered_extensions().items() if name in FORMATS)


def decode(data: bytes, limits: Limits = LIMITS) -> Pixels:
    """The image at its own size, uint8 [height, width, 3].

    Raises:
        UnreadableImage: with the reason.

    >>> decode(b"P6 2 1 255 " + bytes([255, 0, 0, 0, 0, 255])).tolist()
    [[[255, 0, 0], [0, 0, 255]]]
    """
    with _Opened(data, limits) as image:
        return _upright(_rgb(image), _orientation(image))


def decode_squashed(data: bytes, side: int, limits: Limits = LIMITS) -> tuple[Pixels, tuple[int, int]]:
    """The image resized to a square whatever its shape, uint8 [side, side, 3], and its true (height, width).

    Raises:
        UnreadableImage: with the reason.

    >>> pixels, size = decode_squashed(b"P5 4 2 255 " + bytes(8), side=2)
    >>> pixels.shape, size
    ((2, 2, 3), (2, 4))
    """
    with _Opened(data, limits) as image:
        orientation = _orientation(image)
        size = _true_size(image, orientation)
        image.draft("RGB", (3 * side, 3 * side))  # JPEG alone: decodes at 1/2, 1/4 or 1/8 while that is >= 3 x side
        return _upright(_squash(_rgb(image), side), orientation), size


def probe(data: bytes, limits: Limits = LIMITS) -> tuple[int, int]:
    """(height, width) as :func:`decode` would return them, from the header alone.

    Raises:
        UnreadableImage: with the reason.

    >>> probe(b"P5 4 2 255 ")
    (2, 4)
    """
    with _Opened(data, limits) as image:
        return _true_size(image, _orientation(image))


def squash(pixels: Pixels, side: int) -> Pixels:
    """Decoded pixels, uint8 [height, width, 3], resized to uint8 [side, side, 3] with antialiasing.

    >>> squash(np.full((3, 9, 3), 7, np.uint8), 4).shape
    (4, 4, 3)
    """
    return np.asarray(_squash(Image.fromarray(pixels), side))


def to_rgb(pixels: Pixels) -> Pixels:
    """Grey [H, W] or [H, W, 1], RGB [H, W, 3] or RGBA [H, W, 4] as uint8 [H, W, 3]; transparency over white.

    >>> to_rgb(np.array([[[10, 20, 30, 0], [10, 20, 30, 255]]], np.uint8)).tolist()
    [[[255, 255, 255], [10, 20, 30]]]
    """
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    channels = pixels.shape[-1]
    if channels == 1:
        return np.repeat(pixels, 3, axis=-1)
    if channels == 4:
        return np.asarray(_over_white(Image.fromarray(pixels, "RGBA")))
    return pixels


class _Opened:
    """``with _Opened(data, limits) as image``: the header is read and within the limits; any failure has a reason."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        self.data, self.limits = data, limits

    def __enter__(self) -> Image.Image:
        if not self.data:
            raise UnreadableImage("the file is empty")
        if len(self.data) > self.limits.file_bytes:
            raise UnreadableImage(f"{len(self.data)} bytes are more than the {self.limits.file_bytes} allowed")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows
                image = Image.open(io.BytesIO(self.data), formats=FORMATS)
        except MemoryError:
            raise
        except Exception as error:
            raise _reason(error) from error
        pixels = image.width * image.height
        if pixels > self.limits.pixels:
            raise UnreadableImage(
                f"its header says {image.width} x {image.height} pixels, more than the {self.limits.pixels} allowed"
            )
        if pixels == 0:
            raise UnreadableImage("its header says that it has no pixels")
        return image

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, UnreadableImage | MemoryError):
            raise _reason(error) from error


def _reason(error: Exception) -> UnreadableImage:
    """Decoders fail on damaged bytes with almost any exception (OSError, SyntaxError, struct.error, IndexError, ...);
    all of them say the same about the file. (Running out of memory says something about us, and is let through.)"""
    if isinstance(error, UnidentifiedImageError):
        return UnreadableImage("it is not an image of a known format")
    return UnreadableImage(str(error) or type(error).__name__)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block must not cost the image
        return 1


def _true_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    return (image.width, image.height) if orientation in _TRANSPOSED else (image.height, image.width)


def _upright(image: Image.Image, orientation: int) -> Pixels:
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    return np.asarray(image)


def _rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):  # 16-bit grey: I;16 and its byte orders, and I, which a 16-bit PGM opens as
        grey = np.asarray(image).astype(np.float32) / 257  # 65535 / 255
        return Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UnreadableImage("its pixels are floating-point numbers, which have no agreed range")
    if image.has_transparency_data:
        return _over_white(image.convert("RGBA"))
    return image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _squash(image: Image.Image, side: int) -> Image.Image:
    if image.size == (side, side):
        return image
    return image.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=3.0)

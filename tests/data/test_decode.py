from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageFile

from compressl.data import Limits, UnreadableImage, decode, decode_squashed, probe


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_image_upright(orientation: int, photo, encode) -> None:
    upright = photo(48, 32)
    stored = upright
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that each orientation's viewer must reverse
    if orientation in undo:
        stored = upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored, "PNG", exif=exif)
    np.testing.assert_array_equal(decode(data), np.asarray(upright))
    squashed, size = decode_squashed(data, 16)
    assert size == probe(data) == (32, 48)
    difference = squashed.astype(int) - np.asarray(upright.resize((16, 16), Image.Resampling.BICUBIC))
    assert np.abs(difference).max() <= 2


def test_modes_become_rgb(photo, encode) -> None:
    picture = photo()
    reference = np.asarray(picture).astype(int)
    assert np.abs(decode(encode(picture.convert("CMYK"), "JPEG", quality=95)) - reference).max() < 40
    grey = np.asarray(picture.convert("L"))
    assert (decode(encode(picture.convert("L"))) == grey[..., None]).all()
    assert set(np.unique(decode(encode(picture.convert("1"))))) == {0, 255}


def test_sixteen_bits_are_scaled_not_cut(encode) -> None:
    deep = np.array([[0, 257, 200 * 257, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        assert decode(encode(Image.fromarray(deep), kind))[0, :, 0].tolist() == [0, 1, 200, 255]
    assert decode(b"P5 4 1 65535 " + deep.astype(">u2").tobytes())[0, :, 1].tolist() == [0, 1, 200, 255]


def test_transparency_is_laid_over_white(encode) -> None:
    colours = np.array([[[200, 0, 0, 0], [200, 0, 0, 255], [0, 0, 0, 51]]], np.uint8)
    expected = [[255, 255, 255], [200, 0, 0], [204, 204, 204]]
    assert decode(encode(Image.fromarray(colours)))[0].tolist() == expected
    assert decode(encode(Image.fromarray(colours[..., [0, 3]], "LA")))[0, 0].tolist() == [255, 255, 255]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert decode(encode(palette, transparency=0))[0].tolist() == [[255, 255, 255], [40, 50, 60]]
    keyed = encode(Image.new("RGB", (1, 1), (1, 2, 3)), transparency=(1, 2, 3))  # RGB with a transparent colour
    assert decode(keyed)[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_the_first_frame_of_an_animation_is_taken(kind: str, encode) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode(data)[0, 0].tolist() == [255, 0, 0]


def test_unreadable_files_say_why(photo, encode) -> None:
    jpeg = encode(photo(400, 300), "JPEG")
    for data, reason in [
        (b"", "empty"),
        (b"<html></html>", "not an image"),
        (jpeg[: len(jpeg) // 2], "truncated"),
        (jpeg[:-2], "truncated"),
        (b"P6 0 0 255\n", "not an image"),
        (encode(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"), "floating-point"),
    ]:
        with pytest.raises(UnreadableImage, match=reason):
            decode(data)
    with pytest.raises(UnreadableImage, match="bytes are more than the 100"):
        decode(jpeg, Limits(file_bytes=100))


def test_postscript_in_disguise_starts_no_interpreter() -> None:
    with pytest.raises(UnreadableImage, match="not an image"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 14_100])
def test_a_bomb_is_refused_from_its_header(side: int, png_header) -> None:
    bomb = png_header(side, side)
    assert len(bomb) < 20_000
    with pytest.raises(UnreadableImage):
        decode(png_header(9_000, 9_000))  # warm up: plugins are imported on first use
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(UnreadableImage, match="pixels"):
        decode(bomb)
    elapsed, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6
    assert elapsed < 0.2
    assert Image.MAX_IMAGE_PIXELS is not None
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_large_jpeg_shrinks_to_what_antialiasing_gives(photo, encode) -> None:
    large = photo(1600, 1200)
    squashed, size = decode_squashed(encode(large, "JPEG", quality=95), 64)
    reference = np.asarray(large.resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    assert size == (1200, 1600)
    assert squashed.shape == (64, 64, 3)
    assert np.abs(squashed - reference).mean() < 2

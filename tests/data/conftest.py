"""Images made on the fly: a zoo of difficult files, folders of photographs, Parquet files and stores."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from compressl.data import ArraySource, PackedImages, pack

Encode = Callable[..., bytes]


@pytest.fixture(scope="session")
def photo() -> Callable[..., Image.Image]:
    """``photo(width, height, seed)``: smooth colours, so that lossy formats keep them."""

    def make(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
        corners = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
        return Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC)

    return make


@pytest.fixture(scope="session")
def encode() -> Encode:
    def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    return encoded


@pytest.fixture(scope="session")
def png_header() -> Callable[[int, int], bytes]:
    """A valid PNG whose header claims a size; its pixel data is far too short."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def make(width: int, height: int) -> bytes:
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        data = zlib.compress(bytes(12_000_000))  # 12 KB
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")

    return make


@pytest.fixture
def zoo(tmp_path: Path, photo: Callable[..., Image.Image], encode: Encode, png_header: Callable) -> Path:
    """A folder of good and bad files; the name of each bad one begins with ``bad``."""
    root = tmp_path / "zoo"
    (root / "deep" / "directory.jpg").mkdir(parents=True)
    picture = photo()
    jpeg, png = encode(picture, "JPEG"), encode(picture)
    animation = [photo(seed=seed) for seed in range(3)]
    files = {
        "plain.jpg": jpeg,
        "deep/UPPER.JPEG": jpeg,
        "deep/directory.jpg/inside.png": png,
        "wrong-extension.jpg": png,
        "žluťoučký-kůň-馬.png": png,
        "one-pixel.png": encode(photo(1, 1)),
        "sliver.png": encode(photo(1, 4000)),
        "cmyk.jpg": encode(picture.convert("CMYK"), "JPEG"),
        "palette.png": encode(picture.quantize(16), transparency=0),
        "grey-alpha.png": encode(picture.convert("LA")),
        "deep-grey.png": encode(Image.fromarray(np.full((3, 4), 65535, np.uint16))),
        "bilevel.png": encode(picture.convert("1")),
        "animated.gif": encode(animation[0], "GIF", save_all=True, append_images=animation[1:]),
        "animated.webp": encode(animation[0], "WEBP", save_all=True, append_images=animation[1:]),
        "bad-truncated.jpg": jpeg[: len(jpeg) // 2],
        "bad-two-bytes.jpg": jpeg[:-2],
        "bad-empty.jpg": b"",
        "bad-html.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "bad-zero.png": png_header(0, 10),
        "bad-bomb.png": png_header(10_000, 10_000),
        ".hidden.png": png,
        "notes.txt": b"not an image",
    }
    for name, data in files.items():
        (root / name).write_bytes(data)
    (root / "deep" / "loop").symlink_to(root, target_is_directory=True)
    (root / "bad-dangling.png").symlink_to(root / "nowhere.png")
    if os.geteuid() != 0:  # root reads everything
        (root / "bad-forbidden.png").write_bytes(png)
        (root / "bad-forbidden.png").chmod(0)
    return root


@pytest.fixture
def make_folder(photo: Callable[..., Image.Image], encode: Encode) -> Callable[..., Path]:
    """``make_folder(root, {"cats": 3, "dogs": 2})``: PNG images of various sizes in sub-folders."""

    def make(root: Path, counts: dict[str, int]) -> Path:
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                (root / folder / f"{i:03}.png").write_bytes(encode(photo(20 + i % 7, 16, seed=i)))
        return root

    return make


@pytest.fixture
def make_parquet(photo: Callable[..., Image.Image], encode: Encode) -> Callable[..., Path]:
    """``make_parquet(path, labels, names=...)``: the Hugging Face image layout, two rows in a group."""

    def make(
        path: Path,
        labels: list[int | str | None] | None,
        names: list[str] | None = None,
        column: str = "image",
        images: list[bytes | None] | None = None,
        plain: bool = False,
        rows: int = 2,
    ) -> Path:
        count = len(images) if images is not None else len(labels or [])
        data = images if images is not None else [encode(photo(8, 8, seed=i)) for i in range(count)]
        if plain:
            values = pa.array(data, pa.binary())
        else:
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            values = pa.array([None if d is None else {"bytes": d, "path": "x.png"} for d in data], kind)
        columns = {column: values} | ({} if labels is None else {"label": pa.array(labels)})
        table = pa.table(columns)
        if names is not None:
            about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=rows)
        return path

    return make


@pytest.fixture
def numbered() -> Callable[[int], PackedImages]:
    """``numbered(n)``: n packed images of 4 x 4 pixels; image i is i % 256 everywhere."""

    def make(count: int) -> PackedImages:
        pixels = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
        return pack(ArraySource(pixels, np.arange(count), name="numbered"), view_size=4, cache=None)

    return make

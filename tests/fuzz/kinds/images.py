"""Images: small ones of every format, bytes exchanged, cut or repeated, decoded three ways."""

from __future__ import annotations

import io
import random
from contextlib import suppress
from functools import cache
from pathlib import Path

from PIL import Image, features

from rtdetr_cli.config.dataset import DatasetConfig
from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.image import read_image
from rtdetr_cli.data.image_cache import read_record_image
from rtdetr_cli.data.splits import open_split
from rtdetr_cli.media.source import open_source

SAVED = (
    *(("jpg", "JPEG", mode, {}) for mode in ("RGB", "L", "CMYK")),
    ("jpg", "JPEG", "RGB", {"progressive": True, "quality": 40}),
    *(("png", "PNG", mode, {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    ("gif", "GIF", "P", {}),
    *(("bmp", "BMP", mode, {}) for mode in ("RGB", "L", "1", "P")),
    *(
        ("webp", "WEBP", mode, {"lossless": lossless})
        for mode in ("RGB", "RGBA")
        for lossless in (0, 1)
    ),
    *(("tif", "TIFF", mode, {}) for mode in ("RGB", "L", "I;16", "F", "CMYK")),
    *(
        ("tif", "TIFF", "RGB", {"compression": kind})
        for kind in ("tiff_lzw", "jpeg", "tiff_deflate")
    ),
    ("tif", "TIFF", "1", {"compression": "group4"}),
    *(("ppm", "PPM", mode, {}) for mode in ("RGB", "L", "1")),
    ("jp2", "JPEG2000", "RGB", {}),
    ("avif", "AVIF", "RGB", {}),
)
HEADERS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nquit\n",
    b"P6 99999 99999 255\n", b"P6 1 1 " + b"9" * 5000, b"P3 9 9 255 1 2 3", b"Pf 9 9 -1.0\n",
    b"8BPS\0\1", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF\0\0\0\0WEBP",
    b"\xff\xd8\xff", b"\0\0\0\x0cjP  ", b"SIMPLE  =", b"\0\0\1\0", b"qoif", b"/* XPM */",
)  # fmt: skip


def case(rng: random.Random, folder: Path) -> None:
    """Decode one damaged image: by itself, as an image of a data set and as a source."""
    suffix, content = rng.choice(_images())
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        _damage(rng, content)
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text("0 .5 .5 .2 .2")
    path = folder / "images" / f"a.{suffix}"
    path.write_bytes(content)
    with suppress(DataError):
        read_image(path)
    with suppress(DataError):
        names = {0: "a"}
        split = open_split(DatasetConfig(folder, train=("images",), names=names), "train")
        read_record_image(split.records[0])
    for found in open_source(str(path)):
        assert found.error or found.image is not None


def _damage(rng: random.Random, content: bytearray) -> None:
    kind = rng.random()
    at = int(len(content) * rng.random() ** 2)  # headers more often than pixels
    if kind < 0.5:
        for index in range(at, min(at + rng.choice((1, 1, 2, 4)), len(content))):
            content[index] = rng.choice((0, 0xFF, 0x7F, 0x80, rng.randrange(256)))
    elif kind < 0.65:
        del content[at:]
    elif kind < 0.8:
        del content[at : at + rng.randrange(1, 30)]
    elif kind < 0.9:
        content[at:at] = content[at : at + rng.randrange(1, 200)]
    else:
        header = rng.choice(HEADERS)
        content[: len(header) if rng.random() < 0.5 else 0] = header


@cache
def _images() -> list[tuple[str, bytes]]:
    gradient = Image.linear_gradient("L").resize((19, 13))
    colored = Image.merge("RGB", (gradient, gradient.rotate(180), gradient))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    found = []
    for suffix, kind, mode, options in SAVED:
        if kind == "AVIF" and not features.check("avif"):
            continue
        image = (
            gradient.convert("I").convert(mode) if mode.startswith("I") else colored.convert(mode)
        )
        stream = io.BytesIO()
        extra = {"exif": exif} if kind in {"JPEG", "PNG", "WEBP", "TIFF"} else {}
        image.save(stream, kind, **options, **extra)
        found.append((suffix, stream.getvalue()))
    return found

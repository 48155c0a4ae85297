"""How an image file is encoded, and copies of images encoded like it.

core/image.py finds the encoding while it reads; Results (core/results.py) write with it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile, JpegImagePlugin

from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.files import atomic_write

LEAST_QUALITY = 90
"""Of a lossy copy: below it, text and thin lines are blurred."""
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2",),
    "PPM": (".ppm",),
}
"""Formats of copies, as Pillow names them, and the suffixes of their files, the usual one first."""
_SAME_PIXELS = {"MPO": "JPEG", "DIB": "BMP"}
_LIKE_PHOTOS = {"HEIF", "AVIF"}
"""Formats for photos, whose copies are JPEG where there is no encoder; those of others are PNG."""
_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "AVIF": 65535}
_LEAST_EFFORT = {"method": 0, "quality": 0}
"""Of lossless WebP. Like level 1 of PNG and speed 10 of AVIF it makes files up to a fifth larger
than Pillow's default in a tenth to a third of its time (3840x2160: 0.5 s instead of 5)."""
_MOST_CHUNKS = 64
"""Of a WebP file before its pixels."""
_TIFF_COMPRESSIONS = {"packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate"}


@dataclass(frozen=True)
class Encoding:
    """The encoding of a copy.

    Attributes:
        format: as Pillow names it: JPEG, PNG...
        options: of Pillow's encoder, such as the quality.
        icc_profile: color profile of its RGB values; empty for none.
        change: how it differs from that of the original: another format, fewer bits; empty if it
            does not.
    """

    format: str
    options: Mapping[str, Any] = field(default_factory=dict)
    icc_profile: bytes = b""
    change: str = ""

    def fits(self, size_hw: tuple[int, int]) -> bool:
        """Whether an image of this size can be encoded."""
        return max(size_hw) <= _LONGEST_SIDE.get(self.format, max(size_hw))


def encoding_of(image: Image.Image) -> Encoding | None:
    """The encoding of a copy of an opened image file, from its header; None for other images."""
    if not isinstance(image, ImageFile.ImageFile) or image.format is None:
        return None
    icc_profile = image.info.get("icc_profile")
    if not (isinstance(icc_profile, bytes) and icc_profile[16:20] == b"RGB "):
        icc_profile = b""  # also those of gray or CMYK values, which become RGB
    format = _SAME_PIXELS.get(image.format, image.format)
    if format not in _SUFFIXES or format not in Image.SAVE:
        other = "JPEG" if format in _LIKE_PHOTOS else "PNG"
        change = f"is {other}, because {image.format} is not written"
        return Encoding(other, _usual_options(other), icc_profile, change)
    has_16_bits = image.mode.startswith("I") or ";16" in str(image.tile[:1])
    change = "has 8 bits per channel instead of 16" if has_16_bits else ""
    return Encoding(format, _options(image, format), icc_profile, change)


def copy_suffix(own: Path, encoding: Encoding | None, size_hw: tuple[int, int]) -> str:
    """The suffix of a copy: that of the original if its format has it.

    Args:
        own: name of the original.
        encoding: of the copy; None: JPEG.
        size_hw: of the image; PNG if the format has no images so large.
    """
    encoding = encoding or Encoding("JPEG")
    if not encoding.fits(size_hw):
        return ".png"
    suffixes = _SUFFIXES[encoding.format]
    return own.suffix if own.suffix.lower() in suffixes else suffixes[0]


def encoding_for(path: Path, original: Encoding | None) -> Encoding | None:
    """The encoding of a copy with this file name: that of the original if its format is the same.

    Returns:
        None if nothing is known of the original, or the format is none of these copies.
    """
    suffix = path.suffix.lower()
    format = next((format for format, known in _SUFFIXES.items() if suffix in known), None)
    if original is None or format is None:
        return None
    if format == original.format:
        return original
    return Encoding(format, _usual_options(format), original.icc_profile)


def write_encoded(path: Path, image: Image.Image, encoding: Encoding) -> None:
    """Encode an RGB image and write it atomically.

    Raises:
        UsageError: the encoder refuses it, for example because it is too large.
        StorageError: disk full or no permission.
    """
    content, options = io.BytesIO(), dict(encoding.options)
    if encoding.icc_profile:
        options["icc_profile"] = encoding.icc_profile
    try:
        image.save(content, encoding.format, **options)
    except (OSError, ValueError) as error:
        size = f"{image.width}x{image.height}"
        raise UsageError(f"cannot write {size} pixels as {path}: {error}") from error
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def _usual_options(format: str) -> dict[str, Any]:
    """The options of a copy whose original has another format."""
    usual: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 95},
        "PNG": {"compress_level": 1},
        "WEBP": {"quality": LEAST_QUALITY},
        "AVIF": {"quality": LEAST_QUALITY, "speed": 10},
        "TIFF": {"compression": "tiff_lzw"},
    }
    return usual.get(format, {})


def _options(image: ImageFile.ImageFile, format: str) -> dict[str, Any]:
    """The options of a copy whose original has the same format."""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        return _jpeg_options(image)
    if format == "WEBP" and _is_lossless_webp(image):
        return {"lossless": True, **_LEAST_EFFORT}
    compression = image.info.get("compression")
    if format == "TIFF" and compression in _TIFF_COMPRESSIONS:
        return {"compression": compression}
    return _usual_options(format)


def _jpeg_options(image: JpegImagePlugin.JpegImageFile) -> dict[str, Any]:
    """Quality and chroma sampling; a damaged file may lack the table, or have other channels."""
    steps = image.quantization.get(0)
    options = {} if steps is None else {"quality": max(LEAST_QUALITY, _jpeg_quality(sum(steps)))}
    if len(image.layer) == 3:
        options["subsampling"] = JpegImagePlugin.get_sampling(image)
    return {**_usual_options("JPEG"), **options}


@lru_cache(maxsize=64)
def _jpeg_quality(steps: int) -> int:
    """The quality, 1 to 100, whose 64 luma steps have about this sum; found by encoding pixels.

    The tables are those of the Independent JPEG Group, which scales one by the quality; other
    encoders' are compared by their sum.
    """
    low, high = 1, 100
    while low < high:  # steps become smaller as quality increases
        middle = (low + high) // 2
        content = io.BytesIO()
        Image.new("L", (8, 8)).save(content, "JPEG", quality=middle)
        with Image.open(content) as encoded:
            assert isinstance(encoded, JpegImagePlugin.JpegImageFile)
            found = sum(encoded.quantization[0])
        low, high = (low, middle) if found <= steps else (middle + 1, high)
    return low


def _is_lossless_webp(image: ImageFile.ImageFile) -> bool:
    """Whether a WebP file has a chunk of lossless pixels (RFC 9649, section 2.4)."""
    stream = image.fp
    if stream is None or stream.closed:
        return False
    place = stream.tell()
    stream.seek(12)
    lossless = False
    for _ in range(_MOST_CHUNKS):
        head = stream.read(8)
        kind, size = head[:4], int.from_bytes(head[4:], "little")
        if kind in {b"VP8 ", b"VP8L"}:
            lossless = kind == b"VP8L"
            break
        stream.seek(size + size % 2, io.SEEK_CUR)
    stream.seek(place)
    return lossless

"""Images inside a page, as data: URIs of bounded size."""

from __future__ import annotations

import base64
import struct
from typing import NamedTuple

import numpy as np

from rtdetr_cli.core.image import Pixels
from rtdetr_cli.core.opencv import cv2

MAX_JPEG_BYTES = 120_000
"""Size of an image before base64 adds a third: 60 of them stay below 10 MB."""
_QUALITIES = (85, 70, 50, 30)


class ImageData(NamedTuple):
    """An image in a page: its data: URI, and width and height in pixels."""

    uri: str
    size_wh: tuple[int, int]


def jpeg(image_bgr: Pixels, max_bytes: int = MAX_JPEG_BYTES) -> ImageData:
    """Encode (H, W, 3) uint8 BGR, with lower quality and then smaller until it fits."""
    for quality in _QUALITIES:
        data = _encode(image_bgr, quality)
        if len(data) <= max_bytes:
            height, width = image_bgr.shape[:2]
            return ImageData(_uri("jpeg", data), (width, height))
    half = cv2.resize(image_bgr, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return jpeg(np.asarray(half, np.uint8), max_bytes)


def png(data: bytes) -> ImageData:
    """A chart that is encoded already."""
    width, height = struct.unpack(">II", data[16:24])  # IHDR, the first chunk
    return ImageData(_uri("png", data), (width, height))


def _encode(image_bgr: Pixels, quality: int) -> bytes:
    _, data = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data)


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

"""Images in a page decode to what was given and keep to their limit of bytes."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from rtdetr_cli.report.images import MAX_JPEG_BYTES, jpeg, png


def decoded(uri: str) -> Image.Image:
    head, _, data = uri.partition(";base64,")
    assert head in {"data:image/jpeg", "data:image/png"}
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


def test_an_image_keeps_its_size_and_colors():
    image_bgr = np.full((20, 30, 3), (255, 0, 0), np.uint8)  # blue
    image = jpeg(image_bgr)
    assert image.size_wh == decoded(image.uri).size == (30, 20)
    assert decoded(image.uri).getpixel((15, 10)) == pytest.approx((0, 0, 255), abs=3)


@pytest.mark.parametrize("limit", [MAX_JPEG_BYTES, 5_000])
def test_noise_does_not_exceed_the_limit(limit):
    noise = np.random.default_rng(0).integers(0, 256, (640, 640, 3), dtype=np.uint8)
    image = jpeg(noise, limit)
    assert len(image.uri) <= limit * 4 / 3 + 30
    assert image.size_wh == decoded(image.uri).size


def test_a_chart_has_the_size_of_its_png():
    stream = io.BytesIO()
    Image.new("RGB", (7, 5)).save(stream, "png")
    image = png(stream.getvalue())
    assert image.size_wh == decoded(image.uri).size == (7, 5)

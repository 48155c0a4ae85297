"""Small copies of images for the pages of report/, with boxes that say why they are shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rtdetr_cli.core.errors import printable
from rtdetr_cli.core.image import Pixels, read_image
from rtdetr_cli.core.opencv import cv2
from rtdetr_cli.media.draw import Colour, Mark, draw_marks

MAX_ENLARGED = 4.0
"""Largest magnification of a small image."""
MAX_CAPTION = 40
_LEAST_VISIBLE = 20
"""Pixels of a thumbnail below which the longer side of a box is shown in a cutout instead."""

Corners = tuple[float, float, float, float]


class Outline(NamedTuple):
    """A box to draw.

    Attributes:
        corners: left, top, right, bottom in pixels of the upright image.
        caption: label; empty for none.
        colour: red, green, blue.
        is_thin: context, drawn with a thin line below the others.
    """

    corners: Corners
    caption: str
    colour: Colour
    is_thin: bool = False


@dataclass(frozen=True)
class Thumbnail:
    """A part of an image, or all of it, at the size of a thumbnail.

    Attributes:
        pixels: (H, W, 3) uint8 BGR.
        scale: pixels of the thumbnail per pixel of the image.
        origin: left and top of the part, pixels of the image.
    """

    pixels: Pixels
    scale: float
    origin: tuple[int, int] = (0, 0)

    def drawn(self, outlines: Sequence[Outline]) -> Pixels:
        """A copy with boxes; boxes outside of it, and those that are not finite, are left out."""
        ordered = sorted(outlines, key=lambda one: one.is_thin)
        marks = [self._mark(one) for one in ordered if self._is_visible(one.corners)]
        return draw_marks(self.pixels, marks)

    def _is_visible(self, corners: Corners) -> bool:
        x1, y1, x2, y2 = self._moved(corners)
        height, width = self.pixels.shape[:2]
        return bool(np.isfinite(corners).all()) and x1 < width and y1 < height and x2 > 0 < y2

    def _moved(self, corners: Corners) -> list[float]:
        left, top = self.origin
        return [
            self.scale * (corner - start)
            for corner, start in zip(corners, (left, top, left, top), strict=True)
        ]

    def _mark(self, outline: Outline) -> Mark:
        height, width = self.pixels.shape[:2]
        limits = (width - 1, height - 1, width - 1, height - 1)
        x1, y1, x2, y2 = (
            int(np.clip(round(corner), 0, limit))
            for corner, limit in zip(self._moved(outline.corners), limits, strict=True)
        )
        caption = printable(" ".join(outline.caption.split()), MAX_CAPTION)
        frame = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))
        return Mark(frame, caption, outline.colour, outline.is_thin)


def thumbnail(path: Path, side: int, focus: Corners | None = None) -> Thumbnail:
    """Read an image and fit it into a square.

    Args:
        path: image file.
        side: length of the square in pixels.
        focus: box that must be visible: if it would be too small, a part around it is shown.

    Raises:
        DataError: the image cannot be decoded.
    """
    image = read_image(path)[..., ::-1]
    height, width = image.shape[:2]
    left, top, right, bottom = _part(width, height, side, focus)
    part = np.ascontiguousarray(image[top:bottom, left:right])
    scale = min(side / max(part.shape[:2]), MAX_ENLARGED)
    size_wh = tuple(max(1, round(scale * length)) for length in part.shape[1::-1])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    pixels = cv2.resize(part, size_wh, interpolation=how)
    return Thumbnail(np.asarray(pixels, np.uint8), scale, (left, top))


def _part(width: int, height: int, side: int, focus: Corners | None) -> tuple[int, int, int, int]:
    """The part of an image to show: all of it, or a square around a box that is too small."""
    whole = (0, 0, width, height)
    if focus is None or not np.isfinite(focus).all():
        return whole
    longer = max(focus[2] - focus[0], focus[3] - focus[1], 1)
    if longer * min(side / max(width, height), MAX_ENLARGED) >= _LEAST_VISIBLE:
        return whole
    half = math.ceil(max(4 * longer, side / MAX_ENLARGED / 2))
    x, y = round((focus[0] + focus[2]) / 2), round((focus[1] + focus[3]) / 2)
    x, y = min(max(x, half), max(width - half, half)), min(max(y, half), max(height - half, half))
    return max(0, x - half), max(0, y - half), min(width, x + half), min(height, y + half)

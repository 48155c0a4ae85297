"""Draw boxes and labels; passed to Results as the drawing function, used by thumbnails.py."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rtdetr_cli.core.boxes import Boxes
from rtdetr_cli.core.errors import BackendError, UsageError, printable
from rtdetr_cli.core.image import Pixels, swap_red_blue
from rtdetr_cli.core.results import DrawStyle

Colour: TypeAlias = tuple[int, int, int]
Frame: TypeAlias = tuple[int, int, int, int]

_GOLDEN_RATIO = 0.618034
_EDGE = (0, 0, 0, 150)
"""Both edges of a frame, RGBA: on a light ground the edges show, on a dark one the color."""
_LEAST_LUMA = 110
"""Darkest color of a frame, of 255."""


def draw_boxes(
    image_bgr: Pixels,
    boxes: Boxes,
    names: Mapping[int, str],
    style: DrawStyle,
    every_label: bool = True,
) -> Pixels:
    """Draw boxes and labels on a copy of (H, W, 3) uint8 BGR.

    The box with the highest score is drawn last and its label placed first, so that it stays
    readable in a crowd. Boxes are clipped to the image; labels are omitted in very small images.
    A label that finds no free place covers others; without `every_label` it is omitted.
    """
    return _draw(image_bgr, _marks(boxes, names, style), style, every_label)


class Mark(NamedTuple):
    """One box to draw.

    Attributes:
        frame: its first and last pixel, left, top, right, bottom.
        text: label; empty for none.
        colour: red, green, blue.
        is_thin: a line without its dark edges, if wide then half as wide.
    """

    frame: Frame
    text: str
    colour: Colour
    is_thin: bool = False


def draw_marks(image_bgr: Pixels, marks: Sequence[Mark]) -> Pixels:
    """Draw marks on a copy of (H, W, 3) uint8 BGR; the first is drawn last and labelled first.

    A label that finds no free place is omitted.
    """
    return _draw(image_bgr, marks, DrawStyle(), every_label=False)


def _draw(image_bgr: Pixels, marks: Sequence[Mark], style: DrawStyle, every_label: bool) -> Pixels:
    canvas = Image.fromarray(swap_red_blue(image_bgr))
    pen = ImageDraw.Draw(canvas, "RGBA")
    if style.boxes:
        width = style.line_width or _fitting(canvas.size, 280, 140, least=2)
        for mark in reversed(marks):
            _draw_frame(pen, mark, width)
    if style.labels:
        size = style.font_size or _fitting(canvas.size, 45, 25, least=11)
        labelled = [mark for mark in marks if mark.text]
        _write_labels(pen, canvas.size, labelled, load_font(style.font, size), every_label)
    return swap_red_blue(np.asarray(canvas))


def _marks(boxes: Boxes, names: Mapping[int, str], style: DrawStyle) -> list[Mark]:
    marks = []
    for row, (*values, score, label) in enumerate(boxes.clipped().numpy().data.tolist()):
        corners, track = values[:4], [int(one) for one in values[4:]]
        if not np.isfinite(corners).all():
            continue
        x1, y1, x2, y2 = (round(corner) for corner in corners)
        name = printable(" ".join(names.get(int(label), str(int(label))).split()))
        words = [*(f"id:{one}" for one in track), name, *([f"{score:.2f}"] if style.conf else [])]
        number = row if style.color_mode == "instance" else int(label)
        colour = class_color(track[0] if track else number)
        marks.append(Mark((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), " ".join(words), colour))
    return marks


def _draw_frame(pen: ImageDraw.ImageDraw, mark: Mark, width: int) -> None:
    """A frame inside its box, and a thin dark edge on both sides of it."""
    if mark.is_thin:
        pen.rectangle(mark.frame, outline=mark.colour, width=max(2, width // 2))
        return
    x1, y1, x2, y2 = mark.frame
    edge = max(1, width // 3)
    pen.rectangle((x1 - edge, y1 - edge, x2 + edge, y2 + edge), outline=_EDGE, width=edge)
    if min(x2 - x1, y2 - y1) > 2 * width + 2 * edge:
        inner = (x1 + width, y1 + width, x2 - width, y2 - width)
        pen.rectangle(inner, outline=_EDGE, width=edge)
    pen.rectangle(mark.frame, outline=mark.colour, width=width)


def _write_labels(
    pen: ImageDraw.ImageDraw,
    size_wh: tuple[int, int],
    marks: Sequence[Mark],
    font: ImageFont.FreeTypeFont,
    every_label: bool,
) -> None:
    ascent, descent = font.getmetrics()
    pad = max(1, ascent // 5)
    height = ascent + descent + pad
    if 2 * height > size_wh[1] or 2 * height > size_wh[0]:
        return
    taken: list[Frame] = []
    for mark in marks:
        place = _place(
            mark.frame, (int(font.getlength(mark.text)) + 2 * pad, height), size_wh, taken
        )
        if not every_label and any(_overlap(place, other) for other in taken):
            continue
        taken.append(place)
        pen.rectangle(place, fill=mark.colour)
        ink = (0, 0, 0) if _luma(mark.colour) > 140 else (255, 255, 255)
        pen.text((place[0] + pad, place[1] + pad // 2), mark.text, fill=ink, font=font)


def _place(
    frame: Frame, label_wh: tuple[int, int], size_wh: tuple[int, int], taken: list[Frame]
) -> Frame:
    """Place a label above, inside or below the box, at the first free position in the image."""
    (width, height), (image_width, image_height) = label_wh, size_wh
    x1, y1, x2, y2 = frame
    wanted = [(x, y) for y in (y1 - height, y1, y2 + 1) for x in (x1, x2 - width + 1)]
    places = []
    for x, y in wanted:
        left = max(0, min(x, image_width - width))
        top = max(0, min(y, image_height - height))
        place = (left, top, left + width - 1, top + height - 1)
        if top == y and not any(_overlap(place, other) for other in taken):
            return place
        places.append(place)
    return places[0]


def _overlap(a: Frame, b: Frame) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _fitting(size_wh: tuple[int, int], per_side: int, per_short: int, least: int) -> int:
    """Scale a length with the image area, limited by the short side of a panorama."""
    side = math.sqrt(size_wh[0] * size_wh[1])
    return max(least, round(min(side / per_side, min(size_wh) / per_short)))


def class_color(index: int) -> Colour:
    """Color of a class: hues spaced by the golden ratio, two alternating shades, none dark."""
    saturation = (0.9, 0.65)[index % 2]
    color = np.array(colorsys.hsv_to_rgb(index * _GOLDEN_RATIO % 1, saturation, 1)) * 255
    missing = max(0.0, _LEAST_LUMA - _luma(color))
    red, green, blue = color + (255 - color) * missing / (255 - _luma(color))
    return round(red), round(green), round(blue)


def _luma(color: Colour | NDArray[np.float64]) -> float:
    """Brightness of an RGB color in 0..255 (ITU-R BT.601)."""
    return float(np.dot(color, (0.299, 0.587, 0.114)))


@lru_cache(maxsize=8)
def load_font(path: str | None, size: float) -> ImageFont.FreeTypeFont:
    """Load a TrueType font; by default the DejaVu Sans shipped with matplotlib."""
    file = Path(path) if path else _dejavu()
    try:
        return ImageFont.truetype(file, size)
    except OSError as error:
        raise UsageError(f"font {file} cannot be read as a TrueType file") from error


def _dejavu() -> Path:
    """The font in matplotlib's folder, which is found without importing it: that takes 0.3 s."""
    package = find_spec("matplotlib")
    if package is None or package.origin is None:
        raise BackendError("matplotlib, whose font labels are drawn in, is not installed")
    return Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"

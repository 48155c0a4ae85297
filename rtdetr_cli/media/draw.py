"""Draw boxes and labels; passed to Results as the drawing function, used by thumbnails.py."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rtdetr_cli.core.boxes import Boxes
from rtdetr_cli.core.errors import printable
from rtdetr_cli.core.image import Pixels, swap_red_blue
from rtdetr_cli.core.results import DrawStyle
from rtdetr_cli.media.fonts import font_for, load_font

Colour: TypeAlias = tuple[int, int, int]
Frame: TypeAlias = tuple[int, int, int, int]

_GOLDEN_RATIO = 0.618034
_EDGE = (0, 0, 0, 150)
"""Both edges of a frame, RGBA: on a light ground the edges show, on a dark one the color."""
_LEAST_LUMA = 110
"""Darkest color of a frame, of 255."""
_SMALL = 160
"""Images with a shorter side have thin lines."""
_LEAST_TEXT = 11
"""Smallest height of text that is read without effort, in pixels."""
_MOST_LABELS = 1 / 3
"""Share of the image that labels cover at most."""
_LEAST_LETTERS, _MOST_LETTERS = 3, 200
"""Of a label that is cut, and of any label."""
_STEPS = 6
"""Positions of a label along the side of a box."""


def draw_boxes(
    image_bgr: Pixels, boxes: Boxes, names: Mapping[int, str], style: DrawStyle
) -> Pixels:
    """Draw boxes and labels on a copy of (H, W, 3) uint8 BGR.

    The box with the highest score is drawn last and its label placed first, so that it stays
    readable in a crowd. Boxes are clipped to the image. Labels neither cover each other nor more
    than a third of the image: one that finds no place is left out, its box has the color.
    """
    return _draw(image_bgr, _marks(boxes, names, style), style)


class Mark(NamedTuple):
    """One box to draw.

    Attributes:
        frame: its first and last pixel, left, top, right, bottom.
        text: label; empty for none.
        colour: red, green, blue.
        is_thin: a line without its dark edges, if wide then half as wide.
        short: label for an image too narrow for `text`.
    """

    frame: Frame
    text: str
    colour: Colour
    is_thin: bool = False
    short: str = ""


def draw_marks(image_bgr: Pixels, marks: Sequence[Mark]) -> Pixels:
    """Draw marks on a copy of (H, W, 3) uint8 BGR; the first is drawn last and labelled first."""
    return _draw(image_bgr, marks, DrawStyle())


def _draw(image_bgr: Pixels, marks: Sequence[Mark], style: DrawStyle) -> Pixels:
    canvas = Image.fromarray(swap_red_blue(image_bgr))
    pen = ImageDraw.Draw(canvas, "RGBA")
    if style.boxes:
        least = 1 if min(canvas.size) < _SMALL else 2
        width = style.line_width or _fitting(canvas.size, 280, 140, least)
        for mark in reversed(marks):
            _draw_frame(pen, mark, width)
    if style.labels:
        labelled = [mark for mark in marks if mark.text]
        size = style.font_size or _text_size(canvas.size, labelled)
        _write_labels(pen, canvas.size, labelled, lambda text: font_for(text, style.font, size))
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
        frame = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))
        marks.append(Mark(frame, " ".join(words), colour, short=name))
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


def _text_size(size_wh: tuple[int, int], marks: Sequence[Mark]) -> int:
    """The height of text: from the image size, and smaller where labels would cover too much."""
    largest = _fitting(size_wh, 45, 25, _LEAST_TEXT)
    font = load_font(None, largest)
    lengths = (font.getlength(mark.text[:_MOST_LETTERS]) + largest for mark in marks)
    pixels = sum(lengths) * 1.5 * largest
    room = size_wh[0] * size_wh[1] * _MOST_LABELS
    return max(_LEAST_TEXT, int(largest * min(1, math.sqrt(room / max(1, pixels)))))


def _write_labels(
    pen: ImageDraw.ImageDraw,
    size_wh: tuple[int, int],
    marks: Sequence[Mark],
    font_of: Callable[[str], ImageFont.FreeTypeFont],
) -> None:
    frames = np.array([mark.frame for mark in marks]).reshape(-1, 4)
    taken, left = np.zeros((0, 4), np.int64), size_wh[0] * size_wh[1] * _MOST_LABELS
    for mark in marks:
        font = font_of(mark.text)
        ascent, descent = font.getmetrics()
        pad = max(1, ascent // 5)
        text = _fitting_text(mark, font, size_wh[0] - 2 * pad)
        width, height = math.ceil(font.getlength(text)) + 2 * pad, ascent + descent + pad
        if not text or 2 * height > min(size_wh) or width * height > left:
            continue
        place = _place(mark.frame, (width, height), size_wh, taken, frames)
        if place is None:
            continue
        taken, left = np.vstack([taken, place]), left - width * height
        pen.rectangle(place, fill=mark.colour)
        pen.text((place[0] + pad, place[1] + pad // 2), text, fill=ink(mark.colour), font=font)


def _fitting_text(mark: Mark, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The label, its short form or the start of it, whichever fits; empty if none does."""
    for text in (mark.text, mark.short):
        if text and font.getlength(text[:_MOST_LETTERS]) <= width and len(text) <= _MOST_LETTERS:
            return text
    text = (mark.short or mark.text)[:_MOST_LETTERS]
    while len(text) >= _LEAST_LETTERS and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…" if len(text) >= _LEAST_LETTERS else ""


def _place(
    frame: Frame,
    label_wh: tuple[int, int],
    size_wh: tuple[int, int],
    taken: NDArray[np.int64],
    frames: NDArray[np.int64],
) -> Frame | None:
    """Place a label at its box, at the first position that covers no other label.

    Args:
        frame: of the box.
        label_wh: size of the label.
        size_wh: of the image, in which it stays.
        taken: (T, 4) places of other labels.
        frames: (N, 4) of all boxes; positions that hide more than half of one come last.
    """
    places = _candidates(frame, label_wh, size_wh)
    free = places[~(_common(places, taken) > 0).any(axis=1)]
    if not len(free):
        return None
    areas = (frames[:, 2:] - frames[:, :2] + 1).prod(axis=1)
    hides = (_common(free, frames) > areas / 2).any(axis=1)
    x1, y1, x2, y2 = free[hides.argmin()].tolist()
    return x1, y1, x2, y2


def _candidates(
    frame: Frame, label_wh: tuple[int, int], size_wh: tuple[int, int]
) -> NDArray[np.int64]:
    """(P, 4) positions above, inside and below a box, from left to right, inside the image."""
    (width, height), (image_width, image_height) = label_wh, size_wh
    x1, y1, x2, y2 = frame
    last = x2 - width + 1
    between = [x1 + round(step * (last - x1) / _STEPS) for step in range(1, _STEPS)]
    lefts = [max(0, min(x, image_width - width)) for x in (x1, last, *between)]
    most_down = image_height - height
    tops = [y for y in (y1 - height, y1, y2 + 1, y2 - height + 1) if 0 <= y <= most_down]
    tops = tops or [max(0, min(y1, most_down))]
    return np.array([(x, y, x + width - 1, y + height - 1) for y in tops for x in lefts])


def _common(places: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """(P, N) pixels that two sets of frames have in common."""
    low = np.maximum(places[:, None, :2], others[:, :2])
    high = np.minimum(places[:, None, 2:], others[:, 2:])
    pixels: NDArray[np.int64] = (high - low + 1).clip(0).prod(axis=2)
    return pixels


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


def ink(ground: Colour) -> Colour:
    """Black or white, whichever has the higher contrast to a color, at least 4.5 (WCAG 2.2)."""
    linear = [
        one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4
        for one in (channel / 255 for channel in ground)
    ]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    is_bright = (luminance + 0.05) ** 2 > 0.05 * 1.05  # the contrasts to both are equal there
    return (0, 0, 0) if is_bright else (255, 255, 255)


def _luma(color: Colour | NDArray[np.float64]) -> float:
    """Brightness of an RGB color in 0..255 (ITU-R BT.601)."""
    return float(np.dot(color, (0.299, 0.587, 0.114)))

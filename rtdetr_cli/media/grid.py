"""Images of one size side by side, with thin gaps and a caption over each."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rtdetr_cli.core.errors import printable
from rtdetr_cli.core.image import Pixels
from rtdetr_cli.media.fonts import load_font

GAP = 4
_GROUND, _INK = (24, 28, 34), (226, 232, 240)


def num_columns(num_tiles: int) -> int:
    """Columns of a grid that is as square as possible."""
    return math.ceil(math.sqrt(num_tiles))


def join_tiles(tiles: list[Pixels], captions: list[str]) -> Pixels:
    """Join tiles (H, W, 3) uint8 BGR of one size into a grid, row by row.

    A caption that is too long keeps its end, where file names differ.
    """
    height, width = tiles[0].shape[:2]
    font = load_font(None, max(9, width // 30))
    strip = sum(font.getmetrics()) + 2
    columns = num_columns(len(tiles))
    rows = -(-len(tiles) // columns)
    size_wh = (columns * (width + GAP) + GAP, rows * (height + strip + GAP) + GAP)
    canvas = Image.new("RGB", size_wh, _GROUND)
    pen = ImageDraw.Draw(canvas)
    for index, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        row, column = divmod(index, columns)
        left, top = GAP + column * (width + GAP), GAP + row * (height + strip + GAP)
        pen.text((left + 2, top), _shortened(caption, font, width - 4), fill=_INK, font=font)
        canvas.paste(Image.fromarray(np.ascontiguousarray(tile[..., ::-1])), (left, top + strip))
    return np.ascontiguousarray(np.asarray(canvas)[..., ::-1])


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    text = printable(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"…{text}") > width:
        text = text[1:]
    return f"…{text}"

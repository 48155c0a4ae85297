"""Divide a large image into overlapping tiles, so that small objects keep their pixels."""

from __future__ import annotations

import math

from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.config.tiling import Tiling, parse_tiles
from rtdetr_cli.engine.predicting.views import View, whole

_STRIDE = 32
_AUTO_FROM = 1.5
"""tiles=auto divides images with a side larger than so many sides of the input."""


def plan_views(
    size_hw: tuple[int, int], input_hw: tuple[int, int], settings: PredictSettings
) -> list[View]:
    """The views of an image; the first is the whole image."""
    views = [whole(size_hw, input_hw)]
    if settings.tiles is not None:
        tiling = parse_tiles(settings.tiles)
        views = tile_views(size_hw, input_hw, tiling, settings.tile_overlap)
    if settings.rect:
        views = [View(view.box, _shaped_as(view.box, max(input_hw))) for view in views]
    return views


def _shaped_as(box: tuple[int, int, int, int], longer: int) -> tuple[int, int]:
    """Height and width of an input with the aspect of a part, in multiples of the stride."""
    sides = box[3] - box[1], box[2] - box[0]
    strides = longer / max(sides) / _STRIDE
    height, width = (max(1, math.floor(side * strides + 0.5)) for side in sides)
    return height * _STRIDE, width * _STRIDE


def tile_views(
    size_hw: tuple[int, int], input_hw: tuple[int, int], tiling: Tiling, overlap: float
) -> list[View]:
    """The whole image and its tiles, row by row; the whole image alone if there is one tile.

    Args:
        size_hw: of the image in pixels.
        input_hw: of the network.
        tiling: how to divide.
        overlap: of neighbours, as a share of a tile. An object that fits into it is whole in at
            least one tile.
    """
    everything = whole(size_hw, input_hw)
    sides = (tiling.side, tiling.side) if tiling.side else input_hw
    if tiling.grid:
        columns, rows = (
            _grid(*one, overlap) for one in zip(reversed(size_hw), tiling.grid, strict=True)
        )
    elif not tiling.side and all(
        length <= _AUTO_FROM * side for length, side in zip(size_hw, sides, strict=True)
    ):
        return [everything]
    else:
        rows, columns = (_spans(*one, overlap) for one in zip(size_hw, sides, strict=True))
    tiles = [
        View((left, top, right, bottom), input_hw)
        for top, bottom in rows
        for left, right in columns
    ]
    return [everything, *tiles] if len(tiles) > 1 else [everything]


def _grid(length: int, count: int, overlap: float) -> list[tuple[int, int]]:
    """`count` spans of one size that cover a length, neighbours overlapping by a share."""
    side = min(length, math.ceil(length / (count - (count - 1) * overlap)))
    return _even(length, side, min(count, length))


def _spans(length: int, side: int, overlap: float) -> list[tuple[int, int]]:
    """The fewest spans of a side that cover a length and overlap by at least a share."""
    if length <= side:
        return [(0, length)]
    step = max(1, math.floor(side * (1 - overlap)))
    return _even(length, side, 1 + math.ceil((length - side) / step))


def _even(length: int, side: int, count: int) -> list[tuple[int, int]]:
    """`count` spans of a side, the first at 0 and the last at the end."""
    if count == 1:
        return [(0, length)]
    starts = [round(index * (length - side) / (count - 1)) for index in range(count)]
    return [(start, start + side) for start in dict.fromkeys(starts)]

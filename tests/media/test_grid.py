"""Tiles are joined with gaps and captions."""

import numpy as np
import pytest

from rtdetr_cli.media.fonts import load_font
from rtdetr_cli.media.grid import GAP, _shortened, join_tiles, num_columns


def test_grids_are_as_square_as_possible():
    assert [num_columns(count) for count in (1, 2, 4, 5, 9, 10, 16)] == [1, 2, 2, 3, 3, 4, 4]


def test_every_tile_is_there_unchanged_and_apart_from_its_neighbour():
    tiles = [np.full((40, 60, 3), 100 + number, np.uint8) for number in range(5)]
    grid = join_tiles(tiles, ["a.jpg"] * 5)
    assert grid.shape[1] == 3 * 60 + 4 * GAP
    for number in range(5):
        rows, columns = np.nonzero((grid == 100 + number).all(axis=2))
        row, column = divmod(number, 3)
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1, len(rows)) == (40, 60, 40 * 60)
        assert columns.min() == GAP + column * (60 + GAP)
        strip = (grid.shape[0] - GAP) // 2 - 40 - GAP  # of the caption
        assert rows.min() == GAP + strip + row * (40 + strip + GAP)


def test_captions_are_written_above_their_tiles():
    tiles = [np.zeros((40, 60, 3), np.uint8)] * 2
    before, after = join_tiles(tiles, ["", ""]), join_tiles(tiles, ["", "name"])
    rows, columns = np.nonzero((before != after).any(axis=2))
    assert columns.min() >= 60 + 2 * GAP
    assert rows.max() < before.shape[0] - 40 - GAP


@pytest.mark.parametrize("text", ["x" * 500 + "9.jpg", "\x1b[31m" * 50 + "9.jpg", "\n9.jpg"])
def test_a_long_caption_keeps_its_end(text):
    font = load_font(None, 11)
    shown = _shortened(text, font, 60)
    assert shown.endswith("9.jpg")
    assert shown.isprintable()
    assert font.getlength(shown) <= 60

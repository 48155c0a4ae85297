"""Tiles cover the image, have one size and overlap as asked."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.config.tiling import Tiling
from rtdetr_cli.engine.predicting.tiles import plan_views, tile_views

INPUT = (320, 320)


@pytest.mark.parametrize(
    ("tiling", "count"), [(Tiling(), 3 * 5), (Tiling(side=640), 2 * 2), (Tiling(grid=(3, 2)), 6)]
)
def test_tiles_cover_every_pixel_and_overlap(tiling, count):
    """700 x 1100 pixels: ceil((700 - 320) / 256) + 1 = 3 rows of 320 pixels, 5 columns."""
    whole, *tiles = tile_views((700, 1100), INPUT, tiling, overlap=0.2)
    assert whole.box == (0, 0, 1100, 700)
    assert len(tiles) == count
    covered = np.zeros((700, 1100), bool)
    for tile in tiles:
        left, top, right, bottom = tile.box
        covered[top:bottom, left:right] = True
        assert tile.size_hw == INPUT
    assert covered.all()
    sizes = {(right - left, bottom - top) for left, top, right, bottom in (t.box for t in tiles)}
    assert len(sizes) == 1
    ((width, _),) = sizes
    lefts = sorted({tile.box[0] for tile in tiles})
    assert all(b - a <= 0.8 * width + 1 for a, b in itertools.pairwise(lefts))


def test_an_image_of_about_the_input_size_is_not_divided_by_auto():
    """1.5 times the input is the limit."""
    assert len(tile_views((480, 480), INPUT, Tiling(), 0.2)) == 1
    assert len(tile_views((480, 481), INPUT, Tiling(), 0.2)) == 1 + 2 * 2
    assert len(tile_views((300, 300), INPUT, Tiling(side=320), 0.2)) == 1
    assert len(tile_views((300, 300), INPUT, Tiling(grid=(1, 1)), 0.2)) == 1


def test_a_grid_finer_than_the_image_has_distinct_tiles():
    tiles = tile_views((3, 40), INPUT, Tiling(grid=(4, 9)), 0.0)[1:]
    assert len({tile.box for tile in tiles}) == len(tiles) == 4 * 3


@pytest.mark.parametrize(
    ("size_hw", "expected"),
    [((480, 640), (256, 320)), ((640, 470), (320, 224)), ((9, 900), (32, 320)), ((7, 7), INPUT)],
)
def test_rect_is_the_nearest_multiple_of_32_to_the_aspect(size_hw, expected):
    """320 * 480 / 640 = 240 = 7.5 * 32, a tie, and 320 * 470 / 640 = 235 = 7.3 * 32."""
    (view,) = plan_views(size_hw, INPUT, PredictSettings(source="a", rect=True))
    assert view.size_hw == expected


def test_rect_shapes_each_tile_as_its_part():
    settings = PredictSettings(source="a", rect=True, tiles="2x1", tile_overlap=0)
    views = plan_views((100, 400), INPUT, settings)
    assert [view.size_hw for view in views] == [(96, 320), (160, 320), (160, 320)]


def test_the_settings_choose_the_views():
    assert len(plan_views((700, 1100), INPUT, PredictSettings(source="a"))) == 1
    settings = PredictSettings(source="a", tiles="2x1", tile_overlap=0.5)
    assert [view.box for view in plan_views((90, 90), INPUT, settings)] == [
        (0, 0, 90, 90),
        (0, 0, 60, 90),
        (30, 0, 90, 90),
    ]

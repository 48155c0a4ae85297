"""Values of `tiles`, and what else is refused."""

from __future__ import annotations

import pytest

from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.config.tiling import Tiling, parse_tiles
from rtdetr_cli.core.errors import UsageError


def test_auto_a_grid_or_a_side():
    assert parse_tiles("auto") == Tiling()
    assert parse_tiles("4x3") == Tiling(grid=(4, 3))
    assert parse_tiles(640) == Tiling(side=640)


@pytest.mark.parametrize("value", ["4x", "0x2", "4x101", "big", 31, "-640"])
def test_other_values_are_refused_with_the_valid_ones(value):
    with pytest.raises(UsageError, match="tiles must be auto, columns x rows such as 4x3"):
        PredictSettings(source="a", tiles=value)


def test_an_overlap_without_tiles_is_refused():
    with pytest.raises(UsageError, match="tile_overlap has no effect without tiles"):
        PredictSettings(source="a", tile_overlap=0.3)
    assert PredictSettings(source="a", tiles="auto", tile_overlap=0.3).tile_overlap == 0.3

"""Parse `tiles` of `rtdetr predict`: auto, columns x rows, or a side in pixels."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rtdetr_cli.core.bounded_text import show
from rtdetr_cli.core.errors import UsageError

_MOST = 100
_SMALLEST = 32


@dataclass(frozen=True)
class Tiling:
    """How an image is divided.

    Attributes:
        grid: columns and rows; None if `side` decides.
        side: of a tile in pixels of the image; None for the input size of the network.
    """

    grid: tuple[int, int] | None = None
    side: int | None = None


def parse_tiles(value: int | str) -> Tiling:
    """Parse `auto`, `4x3` (columns x rows) or 640 (pixels).

    Raises:
        UsageError: something else, more than 100 columns or rows, or tiles below 32 pixels.
    """
    if value == "auto":
        return Tiling()
    if isinstance(value, int) and not isinstance(value, bool) and value >= _SMALLEST:
        return Tiling(side=value)
    grid = re.fullmatch(r"(\d{1,3})[xX](\d{1,3})", str(value))
    if grid and all(1 <= int(count) <= _MOST for count in grid.groups()):
        return Tiling(grid=(int(grid[1]), int(grid[2])))
    raise UsageError(
        f"predict: tiles must be auto, columns x rows such as 4x3 (at most {_MOST} each), or "
        f"a side in pixels from {_SMALLEST}, found {show(value)}"
    )

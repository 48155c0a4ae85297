"""TIFF files above the limit of megapixels, read part by part with pyvips (libvips), if installed.

Tiles are decoded each by itself; libvips decodes strips once into a temporary file. Further pages,
palettes, 16 bits and turned images are left out.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from math import ceil, sqrt
from pathlib import Path
from shutil import disk_usage
from tempfile import gettempdir
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.image import Pixels, max_pixels

if TYPE_CHECKING:
    from PIL.TiffImagePlugin import TiffImageFile

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MODES = ("L", "RGB", "RGBA")
_ROWS, _TILE_HEIGHT, _ORIENTATION = 278, 323, 274
_MAX_PIECE_PIXELS = 1 << 26
"""Pixels of a strip or row of tiles, which is decoded as a whole."""
_MAX_GIGAPIXELS = 20
_MAX_PART_PIXELS = 1 << 24
"""Pixels of a part in memory; larger ones are shrunk by a whole number while they are read."""


class LargeImage:
    """A TIFF file whose parts are read when they are needed.

    Attributes:
        size_hw: height and width in pixels.
    """

    def __init__(self, path: Path, size_hw: tuple[int, int]) -> None:
        """Open a file that `find_large` has found."""
        vips = import_module("pyvips")
        self._error, self._path, self.size_hw = vips.Error, path, size_hw
        try:
            self._image = vips.Image.tiffload(str(path), access="random")
        except vips.Error as error:
            raise self._broken(error) from None

    def placeholder(self) -> Pixels:
        """A black image of the same size, which takes no memory until it is copied."""
        return np.broadcast_to(np.uint8(0), (*self.size_hw, 3))

    def part(self, box: tuple[int, int, int, int]) -> Pixels:
        """Read left, top, right, bottom in pixels: (h, w, 3) uint8 RGB, shrunk if it is large.

        Raises:
            DataError: that part of the file is damaged.
        """
        left, top, right, bottom = box
        width, height = right - left, bottom - top
        factor = ceil(sqrt(width * height / _MAX_PART_PIXELS))
        try:
            region = self._image.crop(left, top, width, height)
            if factor > 1:
                region = region.shrink(min(factor, width), min(factor, height))
            pixels = np.atleast_3d(np.asarray(region.numpy(), np.uint8))
        except self._error as error:
            raise self._broken(error) from None
        is_gray = pixels.shape[2] == 1
        return np.repeat(pixels, 3, axis=2) if is_gray else np.ascontiguousarray(pixels[..., :3])

    def _broken(self, error: Exception) -> DataError:
        reason = (str(error).strip().splitlines() or ["damaged"])[-1]
        return DataError(f"{self._path}: cannot be read as an image ({reason})")


def find_large(path: Path) -> LargeImage | None:
    """Open a TIFF file above the limit of megapixels; None for every other file.

    Raises:
        DataError: it is one, but pyvips is missing, or its parts cannot be read one by one.
    """
    header = _header(path)
    if header is None or header.width * header.height <= max_pixels():
        return None
    megapixels = header.width * header.height / 1e6
    name = f"{path}: {megapixels:.0f} megapixels"
    is_tiled = _TILE_HEIGHT in header.tag_v2
    rows = header.tag_v2.get(_TILE_HEIGHT if is_tiled else _ROWS, header.height)
    if megapixels > 1000 * _MAX_GIGAPIXELS:
        raise DataError(f"{name}; parts are read of at most {1000 * _MAX_GIGAPIXELS}")
    if header.mode not in _MODES or header.tag_v2.get(_ORIENTATION, 1) != 1:
        raise DataError(f"{name}; parts are read of upright 8-bit gray, RGB or RGBA images only")
    if min(rows, header.height) * header.width > _MAX_PIECE_PIXELS:
        raise DataError(
            f"{name} in strips of {rows} rows; smaller strips or tiles can be read one by one"
        )
    needs = 0 if is_tiled else header.width * header.height * len(header.getbands())
    if needs > disk_usage(gettempdir()).free // 2:
        raise DataError(
            f"{name} in strips need {needs / 1e9:.1f} GB in {gettempdir()}, at most half of what "
            "is free there; with tiles no space is needed"
        )
    if find_spec("pyvips") is None:
        raise DataError(f"{name} are read by parts with pyvips: pip install 'rtdetr-cli[large]'")
    return LargeImage(path, (header.height, header.width))


def _header(path: Path) -> TiffImageFile | None:
    """Size and tags of a TIFF file, whatever its size; no pixel is decoded."""
    try:
        with path.open("rb") as file:
            if file.read(4) not in _MAGIC:
                return None
            from PIL.TiffImagePlugin import TiffImageFile

            file.seek(0)
            return TiffImageFile(file)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return None  # the usual reader names the reason

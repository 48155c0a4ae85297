"""An image as input of the network; threads prepare several (pipeline.py)."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.image import Pixels, resize_image, swap_red_blue, to_planes
from rtdetr_cli.media.item import SourceImage

_EMPTY = np.zeros((0, 0, 3), np.uint8)


class Prepared(NamedTuple):
    """An image or frame, and what the network and Results need of it; empty if it is unreadable.

    Attributes:
        item: of the source.
        planes: (3, height, width) float32 in 0..1 RGB, at the size of the network.
        bgr: (H, W, 3) uint8 in its own size.
        seconds: that it took to resize and convert.
    """

    item: SourceImage
    planes: NDArray[np.float32]
    bgr: Pixels
    seconds: float

    def num_bytes(self) -> int:
        """Memory it holds."""
        return self.planes.nbytes + 2 * self.bgr.nbytes


def prepare(item: SourceImage, wanted: Preprocessing) -> Prepared:
    """Resize and convert an image, without PyTorch, whose threads are the network's."""
    if item.image is None:
        return Prepared(item, np.zeros((3, 0, 0), np.float32), _EMPTY, 0.0)
    start = time.perf_counter()
    planes = to_planes(resize_image(item.image, wanted.size_hw, wanted.antialias))
    seconds = time.perf_counter() - start
    return Prepared(item, planes, swap_red_blue(item.image), seconds)

"""An image as input of the network; threads prepare several (pipeline.py)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.core.image import Pixels, swap_red_blue
from rtdetr_cli.engine.predicting.augmentation import PLAIN, Variant, varied
from rtdetr_cli.engine.predicting.tiles import plan_views
from rtdetr_cli.engine.predicting.views import Planes, View
from rtdetr_cli.media.item import SourceImage

_EMPTY = np.zeros((0, 0, 3), np.uint8)


class Prepared(NamedTuple):
    """An image or frame, and what the network and Results need of it; empty if it is unreadable.

    Attributes:
        item: of the source.
        views: what the network sees of it.
        planes: of each view, (3, height, width) float32 in 0..1 RGB, at the size of the network.
        bgr: (H, W, 3) uint8 in its own size.
        seconds: that it took to resize and convert.
    """

    item: SourceImage
    views: list[View]
    planes: list[Planes]
    bgr: Pixels
    seconds: float

    def num_bytes(self) -> int:
        """Memory it holds."""
        return sum(one.nbytes for one in self.planes) + 2 * self.bgr.nbytes


def prepare(
    item: SourceImage,
    wanted: Preprocessing,
    settings: PredictSettings,
    variants: Sequence[Variant] = PLAIN,
) -> Prepared:
    """Resize and convert the views, without PyTorch, whose threads are the network's."""
    if item.image is None:
        return Prepared(item, [], [], _EMPTY, 0.0)
    start = time.perf_counter()
    views = varied(plan_views(item.image.shape[:2], wanted.size_hw, settings), variants)
    planes = [view.planes(item.image, wanted.antialias) for view in views]
    seconds = time.perf_counter() - start
    return Prepared(item, views, planes, swap_red_blue(item.image), seconds)

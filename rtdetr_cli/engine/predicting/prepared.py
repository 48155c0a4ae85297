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
from rtdetr_cli.engine.predicting.views import Planes, PlanesOfViews, View
from rtdetr_cli.media.item import SourceImage
from rtdetr_cli.media.large_image import LargeImage

_NOT_WRITTEN = (
    "is read by parts and not drawn; give save=false and no other save_ key, and take the "
    "detections from json=true or out=FOLDER"
)
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
    planes: PlanesOfViews
    bgr: Pixels
    seconds: float

    def num_bytes(self) -> int:
        """Memory it holds."""
        planes: list[Planes] = self.planes if isinstance(self.planes, list) else []
        return sum(one.nbytes for one in planes) + 2 * self.bgr.nbytes


class _PartsOfFile:
    """The planes of the views of a large image, read and resized when they are taken."""

    def __init__(self, image: LargeImage, views: list[View], antialias: bool) -> None:
        self._image, self._views, self._antialias = image, views, antialias

    def __getitem__(self, position: int) -> Planes:
        view = self._views[position]
        return view.planes_of(self._image.part(view.box), self._antialias)


def prepare(
    item: SourceImage,
    wanted: Preprocessing,
    settings: PredictSettings,
    variants: Sequence[Variant] = PLAIN,
) -> Prepared:
    """Resize and convert the views, without PyTorch, whose threads are the network's."""
    writes = settings.save or settings.save_txt or settings.save_crop or settings.save_frames
    if item.large is not None and writes:
        item = item._replace(image=None, error=f"{item.path}: {_NOT_WRITTEN}", large=None)
    if item.image is None:
        return Prepared(item, [], [], _EMPTY, 0.0)
    start = time.perf_counter()
    views = varied(plan_views(item.image.shape[:2], wanted.size_hw, settings), variants)
    if item.large is not None:
        parts = _PartsOfFile(item.large, views, wanted.antialias)
        return Prepared(item, views, parts, item.image, 0.0)
    planes = [view.planes(item.image, wanted.antialias) for view in views]
    seconds = time.perf_counter() - start
    return Prepared(item, views, planes, swap_red_blue(item.image), seconds)

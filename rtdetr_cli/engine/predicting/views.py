"""What the network sees of an image: a view is a part of it, at an input size, maybe mirrored.

Without tiles there is one view, the whole image. tiles.py divides images and augmentation.py
varies views; merging.py makes one set of detections of those of several views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rtdetr_cli.backends.load import Detector
from rtdetr_cli.core.detections import Detections
from rtdetr_cli.core.image import Pixels, resize_image, to_planes
from rtdetr_cli.engine.predicting.filters import Filters

Planes: TypeAlias = NDArray[np.float32]


class PlanesOfViews(Protocol):
    """The planes of each view of an image, by its position; a list, or read when it is taken."""

    def __getitem__(self, position: int, /) -> Planes: ...


_VIEWS_PER_BATCH = 8
"""Views that go through the network at once, if `batch` is smaller."""


@dataclass(frozen=True)
class View:
    """A part of an image as input of the network.

    Attributes:
        box: left, top, right and bottom of the part in pixels of the image.
        size_hw: of the input.
        is_mirrored: whether the input has left and right exchanged.
    """

    box: tuple[int, int, int, int]
    size_hw: tuple[int, int]
    is_mirrored: bool = False

    @property
    def part_hw(self) -> tuple[int, int]:
        """Height and width of the part, in pixels of the image."""
        left, top, right, bottom = self.box
        return bottom - top, right - left

    def planes(self, rgb: Pixels, antialias: bool) -> Planes:
        """The part of an image as input, (3, height, width) float32 in 0..1 RGB."""
        left, top, right, bottom = self.box
        return self.planes_of(rgb[top:bottom, left:right], antialias)

    def planes_of(self, part: Pixels, antialias: bool) -> Planes:
        """As `planes`, from the pixels of the part alone, which may be shrunk."""
        planes = to_planes(resize_image(part, self.size_hw, antialias))
        return planes[..., ::-1] if self.is_mirrored else planes

    def to_image(self, found: Detections) -> Detections:
        """Move detections in pixels of the part to those of the image."""
        left, top, right, _ = self.box
        boxes = found.boxes_xyxy
        if self.is_mirrored:
            boxes = boxes[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1], boxes.dtype)
        start = right if self.is_mirrored else left
        offset = np.array([start, top, start, top], np.float32)
        return Detections(boxes + offset, found.scores, found.labels)


def whole(size_hw: tuple[int, int], input_hw: tuple[int, int]) -> View:
    """The whole image as a view."""
    return View((0, 0, size_hw[1], size_hw[0]), input_hw)


def detect_views(
    detector: Detector,
    views: Sequence[list[View]],
    planes: Sequence[PlanesOfViews],
    filters: Filters,
) -> list[list[Detections]]:
    """Detect in all views of a batch of images.

    Args:
        detector: of any runtime.
        views: of each image.
        planes: of each view, (3, height, width) float32 in 0..1 RGB, at the size of the network;
            each is taken once, when its turn comes.
        filters: of the prediction.

    Returns:
        Detections of each view of each image, in pixels of the image.
    """
    jobs = [
        (index, position, view)
        for index, of_image in enumerate(views)
        for position, view in enumerate(of_image)
    ]
    found: dict[tuple[int, View], Detections] = {}
    step = max(_VIEWS_PER_BATCH, len(views))
    for size_hw in dict.fromkeys(view.size_hw for *_, view in jobs):
        same = [job for job in jobs if job[2].size_hw == size_hw]
        for start in range(0, len(same), step):
            part = same[start : start + step]
            batch = np.stack([planes[index][position] for index, position, _ in part])
            sizes_hw = [view.part_hw for *_, view in part]
            rows = detector.detect(batch, sizes_hw, filters.num_pairs, filters.selection)
            for (index, _, view), one in zip(part, rows, strict=True):
                found[index, view] = view.to_image(one)
    return [[found[index, view] for view in of_image] for index, of_image in enumerate(views)]

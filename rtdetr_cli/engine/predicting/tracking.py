"""Give the detections of successive frames the ids of their objects, whatever the algorithm.

Each video, stream and folder of images has a tracker of its own. library_tracker.py has the
algorithms.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtdetr_cli.core.arrays import Array, HostArray
from rtdetr_cli.core.boxes import Boxes
from rtdetr_cli.core.image import Pixels
from rtdetr_cli.core.results import Results
from rtdetr_cli.engine.predicting.box_iou import box_iou
from rtdetr_cli.media.item import SourceImage

IMAGES_FPS = 30.0
"""Frames per second of images that have no time; also the unit of the tracks' life time."""
_SAME_BOX = 0.999
"""IoU of boxes that are equal but for rounding."""


class Tracker(Protocol):
    """Follows the objects of one sequence."""

    def update(self, boxes: Boxes, image_bgr: Pixels, time_s: float) -> NDArray[np.int64]:
        """Match the detections of the next frame with the tracks.

        Args:
            boxes: N detections, highest score first.
            image_bgr: (H, W, 3) uint8, for the motion of the camera.
            time_s: time of the frame, greater than that of the previous one; a larger step means
                that frames are missing.

        Returns:
            (N,) id of each detection, from 1; 0 for detections without a track. A new id is
            greater than all before.
        """


class Trackers:
    """The trackers of a run; finished videos are forgotten."""

    def __init__(self, open_tracker: Callable[[float], Tracker], persist: bool = False) -> None:
        """Prepare trackers.

        Args:
            open_tracker: makes one from the frames per second of its sequence.
            persist: files continue the same tracks, as do streams of the same address.
        """
        self._open, self.persist = open_tracker, persist
        self._sequences: dict[Hashable, _Sequence] = {}

    def update(self, items: Sequence[SourceImage], results: Sequence[Results]) -> None:
        """Replace the boxes of each frame by those with a track, and add the ids.

        Args:
            items: frames in the order of their source; an unreadable one is a missing frame.
            results: of the readable ones.
        """
        remaining = iter(results)
        for item in items:
            sequence = self._sequence_of(item)
            if item.image is None:
                sequence.skip(item)
            else:
                sequence.update(item, next(remaining))

    def reset(self) -> None:
        """Forget all tracks; ids start from 1."""
        self._sequences.clear()

    def _sequence_of(self, item: SourceImage) -> _Sequence:
        key, is_live = self._key(item)
        if key not in self._sequences:
            if not is_live:  # files are read one after the other
                self._sequences.clear()
            fps = IMAGES_FPS if item.clip is None else item.clip.fps
            self._sequences[key] = _Sequence(self._open(fps), fps)
        return self._sequences[key]

    def _key(self, item: SourceImage) -> tuple[Hashable, bool]:
        """What the frames of a sequence have in common, and whether it is a stream."""
        if item.clip is not None and item.clip.is_live:
            return (item.clip.path if self.persist else item.clip), True
        if self.persist:
            return None, False
        return (Path(item.path).parent if item.clip is None else item.clip), False


class _Sequence:
    """A tracker and its clock, which only goes forward."""

    def __init__(self, tracker: Tracker, fps: float) -> None:
        self._tracker, self._step_s = tracker, 1 / fps
        self._frame, self._last_s, self._shift_s = 0, 0.0, 0.0

    def skip(self, item: SourceImage) -> None:
        """Count a still image that cannot be read; the frames of clips have their own numbers."""
        if item.clip is None:
            self._frame += 1
            self._last_s += self._step_s

    def update(self, item: SourceImage, results: Results) -> None:
        """Add the ids, and to a still image its number in the sequence."""
        self._frame += 1
        boxes = _distinct(results.boxes)
        ids = self._tracker.update(boxes, results.orig_img, self._advance(item.time_s))
        results.update(_with_ids(boxes, ids))
        if item.clip is None:
            results.frame = self._frame

    def _advance(self, time_s: float | None) -> float:
        """The time of a frame; one step after the last if it has none or it goes back."""
        following_s = self._last_s + self._step_s
        if time_s is None:
            self._last_s = following_s
        elif self._frame > 1 and time_s + self._shift_s <= self._last_s:
            self._shift_s = following_s - time_s  # another file, or two frames at the same time
            self._last_s = following_s
        else:
            self._last_s = time_s + self._shift_s
        return self._last_s


def _distinct(boxes: Boxes) -> Boxes:
    """Each query once, under its best class.

    Trackers expect one box per object. Other classes of a query have the same box; boxes of other
    queries are left to `nms` (filters.py). Boxes without an area, which have no aspect ratio to
    predict, are left out too.
    """
    xyxy = np.asarray(boxes.numpy().xyxy)
    kept: list[int] = []
    for row, box in enumerate(xyxy):  # highest score first
        if not (np.isfinite(box).all() and (box[2:] > box[:2]).all()):
            continue
        if not kept or box_iou(box[None], xyxy[kept]).max() <= _SAME_BOX:
            kept.append(row)
    return boxes[kept]


def _with_ids(boxes: Boxes, ids: NDArray[np.int64]) -> Array:
    """(K, 7) rows x1, y1, x2, y2, id, score, class of the boxes with an id, in their order."""
    data = np.asarray(boxes.numpy().data)
    rows = np.concatenate([data[:, :4], ids[:, None], data[:, 4:]], axis=1)[ids > 0]
    rows = rows.astype(data.dtype)
    if isinstance(boxes.data, np.ndarray):
        return rows.view(HostArray)
    return boxes.data.new_tensor(rows)

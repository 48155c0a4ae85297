"""Which detections of an image a prediction returns: by class, score, query and number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdetr_cli.backends.load import Detector
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.core.class_names import class_indices
from rtdetr_cli.core.detections import Detections, Selection
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.engine.session.thresholds import Thresholds, find_thresholds

_TOP_PAIRS = 300
"""Least number of detections requested of a detector, so that `conf` can filter them."""


@dataclass(frozen=True)
class Filters:
    """The filters of a prediction.

    Attributes:
        thresholds: of the scores.
        selection: the pairs of query and class that the detector selects from.
        max_det: most detections per image.
        nms: IoU with a better detection above which one is dropped; None for no NMS.
        agnostic: whether NMS compares detections of all classes.
    """

    thresholds: Thresholds
    selection: Selection
    max_det: int
    nms: float | None = None
    agnostic: bool = False

    @property
    def num_pairs(self) -> int:
        """Number of detections to request of the detector."""
        return max(_TOP_PAIRS, self.max_det)

    def above(self, found: Detections) -> Detections:
        """Those with a score above the threshold of their class."""
        return found.keep(self.thresholds.keep(found))

    def choose(self, found: Detections) -> Detections:
        """The best `max_det` detections with a score above the threshold of their class."""
        kept = self.above(found)
        if self.nms is not None:
            kept = kept.keep(_without_duplicates(kept, self.nms, self.agnostic))
        return self.thresholds.shown(kept.keep(slice(self.max_det)))


def find_filters(detector: Detector, settings: PredictSettings) -> Filters:
    """The filters of the settings for a detector.

    Raises:
        UsageError: a class is unknown, conf=auto without a calibration in the file, or rect=true
            with a fixed input size.
    """
    if settings.rect and not detector.size_is_free:
        height, width = detector.preprocessing.size_hw
        raise UsageError(
            f"rect=true: {settings.model} takes {height}x{width} only; export it with dynamic=true"
        )
    thresholds, classes = find_thresholds(detector, settings), None
    lowest = thresholds.scores
    if settings.classes is not None:
        classes = tuple(class_indices(settings.classes, detector.names, "model"))
        lowest = lowest[list(classes)]
    above = float(lowest.min()) if len(lowest) else 0.0
    return Filters(
        thresholds,
        Selection(classes, settings.one_label, above),
        settings.max_det,
        settings.nms,
        settings.agnostic_nms,
    )


def _without_duplicates(found: Detections, most_iou: float, agnostic: bool) -> NDArray[np.int64]:
    """Indices that NMS keeps; `found` has the best first."""
    boxes, kept = found.boxes_xyxy, list[int]()
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    remaining = np.arange(len(found))
    while len(remaining):
        best, remaining = remaining[0], remaining[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[remaining, :2])
        high = np.minimum(boxes[best, 2:], boxes[remaining, 2:])
        common = (high - low).clip(0).prod(axis=1)
        is_double = common > most_iou * (areas[best] + areas[remaining] - common)
        if not agnostic:
            is_double &= found.labels[remaining] == found.labels[best]
        remaining = remaining[~is_double]
    return np.array(kept, np.int64)

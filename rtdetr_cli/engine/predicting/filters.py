"""Which detections of an image a prediction returns: by class, score, query and number."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torchvision.ops import batched_nms

from rtdetr_cli.backends.load import Detector
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.core.class_names import class_indices
from rtdetr_cli.core.structures import Detections, Selection
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

    def choose(self, found: Detections) -> Detections:
        """The best `max_det` detections with a score above the threshold of their class."""
        kept = found.keep(self.thresholds.keep(found))
        if self.nms is not None:
            classes = torch.zeros_like(kept.labels) if self.agnostic else kept.labels
            kept = kept.keep(batched_nms(kept.boxes_xyxy, kept.scores, classes, self.nms))
        return self.thresholds.shown(kept.keep(torch.arange(min(len(kept), self.max_det))))


def find_filters(detector: Detector, settings: PredictSettings) -> Filters:
    """The filters of the settings for a detector.

    Raises:
        UsageError: a class is unknown, or conf=auto without a calibration in the file.
    """
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

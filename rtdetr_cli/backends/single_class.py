"""A detector whose classes are merged into one, for `rtdetr val single_cls=true`."""

from __future__ import annotations

import torch
from torch import Tensor

from rtdetr_cli.backends.load import Detector
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.structures import ALL_PAIRS, Detections, Selection
from rtdetr_cli.nn.postprocess import first_of_equal
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.calibration import Calibration


class SingleClassDetector:
    """A detector of several classes as one of a single class.

    Args:
        detector: of several classes.
        name: of the single class.
        kept: class indices whose detections count; None for all.
    """

    calibration: Calibration | None = None
    """The scores of the merged class were not calibrated."""

    def __init__(self, detector: Detector, name: str, kept: list[int] | None = None) -> None:
        self._detector = detector
        self._kept = None if kept is None else torch.tensor(kept, dtype=torch.int64)
        self.names = {0: name}
        self.preprocessing: Preprocessing = detector.preprocessing
        self.description: str = detector.description
        self.size_is_free: bool = detector.size_is_free

    @property
    def network(self) -> RTDETRNetwork | None:
        """That of the detector."""
        return self._detector.network

    @property
    def device(self) -> torch.device | None:
        """That of the detector."""
        return self._detector.device

    def detect(
        self,
        images: Tensor,
        sizes_hw: list[tuple[int, int]],
        max_det: int = 300,
        selection: Selection = ALL_PAIRS,
    ) -> list[Detections]:
        """As the detector, all with class 0; a box of several classes counts once."""
        return [self._merged(one) for one in self._detector.detect(images, sizes_hw, max_det)]

    def _merged(self, found: Detections) -> Detections:
        if self._kept is not None:
            found = found.keep(torch.isin(found.labels, self._kept.to(found.labels.device)))
        first = first_of_equal(found.boxes_xyxy)
        return Detections(
            found.boxes_xyxy[first], found.scores[first], torch.zeros_like(found.labels[first])
        )

"""A detector whose classes are merged into one, for `rtdetr val single_cls=true`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rtdetr_cli.backends.load import Detector
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.detections import ALL_PAIRS, Detections, Images, Selection
from rtdetr_cli.weights.calibration import Calibration

if TYPE_CHECKING:
    import torch

    from rtdetr_cli.nn.rtdetr import RTDETRNetwork


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
        self._kept = kept
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
        images: Images,
        sizes_hw: list[tuple[int, int]],
        max_det: int = 300,
        selection: Selection = ALL_PAIRS,
    ) -> list[Detections]:
        """As the detector, all with class 0; a box of several classes counts once."""
        return [self._merged(one) for one in self._detector.detect(images, sizes_hw, max_det)]

    def _merged(self, found: Detections) -> Detections:
        if self._kept is not None:
            found = found.keep(np.isin(found.labels, self._kept))
        found = found.distinct_boxes()
        return replace(found, labels=np.zeros_like(found.labels))

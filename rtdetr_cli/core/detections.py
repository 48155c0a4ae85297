"""What a detector of any runtime takes and returns; without torch, as exported files need none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Images: TypeAlias = "NDArray[np.float32] | Tensor"
"""(B, 3, H, W) float RGB in 0..1, the input of a detector of any runtime."""


@dataclass(frozen=True)
class Selection:
    """Which pairs of query and class compete for the places of an image.

    Attributes:
        classes: class indices; None for all.
        one_label: only the best class of each query.
        above: detections with this score or a lower one are not needed.
    """

    classes: tuple[int, ...] | None = None
    one_label: bool = False
    above: float = 0


ALL_PAIRS = Selection()


@dataclass
class Detections:
    """Detections in one image, highest score first.

    Attributes:
        boxes_xyxy: (N, 4) float32 in pixels of the original image.
        scores: (N,) float32 in 0..1.
        labels: (N,) int64 class indices.
    """

    boxes_xyxy: NDArray[np.floating[Any]]
    scores: NDArray[np.floating[Any]]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def keep(self, rows: NDArray[Any] | slice) -> Detections:
        """Select detections by a boolean mask, by indices or by a slice."""
        return Detections(self.boxes_xyxy[rows], self.scores[rows], self.labels[rows])

    def of(self, selection: Selection) -> Detections:
        """Those of a selection, if all pairs competed."""
        found = self
        if selection.classes is not None:
            found = found.keep(np.isin(found.labels, selection.classes))
        # the classes of a query have the same box
        return found.distinct_boxes() if selection.one_label else found

    def distinct_boxes(self) -> Detections:
        """The first, and so the best, of several detections with equal boxes."""
        _, first = np.unique(self.boxes_xyxy, axis=0, return_index=True)
        return self.keep(np.sort(first))

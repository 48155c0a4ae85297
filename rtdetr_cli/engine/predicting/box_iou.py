"""IoU of boxes as NumPy arrays, for detections of every runtime; tiles and trackers use it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def box_iou(ours: Floats, theirs: Floats) -> Floats:
    """(N, M) IoU of (N, 4) and (M, 4) boxes, x1, y1, x2, y2; 0 for two of no area."""
    low = np.maximum(ours[:, None, :2], theirs[:, :2])
    high = np.minimum(ours[:, None, 2:], theirs[:, 2:])
    common = (high - low).clip(0).prod(axis=2)
    areas = [(one[:, 2:] - one[:, :2]).prod(axis=1) for one in (ours, theirs)]
    union = areas[0][:, None] + areas[1] - common
    ious: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return ious

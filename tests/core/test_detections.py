"""Rows of detections that a mask, a slice or a selection keeps."""

from __future__ import annotations

import numpy as np

from rtdetr_cli.core.detections import ALL_PAIRS, Detections, Selection

FOUND = Detections(
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.array([0.9, 0.8, 0.7], np.float32),
    np.array([1, 0, 1]),
)


def test_ranked_detections_are_selected_by_class():
    assert FOUND.of(Selection((1,))).boxes_xyxy.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert len(FOUND.of(Selection(()))) == 0
    assert FOUND.of(ALL_PAIRS) is FOUND


def test_rows_are_kept_by_mask_by_index_and_by_slice():
    assert FOUND.keep(FOUND.scores > 0.75).labels.tolist() == [1, 0]
    assert FOUND.keep(np.array([2, 0])).scores.tolist() == FOUND.scores[[2, 0]].tolist()
    assert len(FOUND.keep(slice(2))) == 2

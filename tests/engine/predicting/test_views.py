"""Views of images through a detector that reports what it sees."""

from __future__ import annotations

import numpy as np
import pytest

from rtdetr_cli.core.detections import ALL_PAIRS, Detections
from rtdetr_cli.engine.predicting.filters import Filters
from rtdetr_cli.engine.predicting.views import View, detect_views, whole
from rtdetr_cli.engine.session.thresholds import Thresholds

FILTERS = Filters(Thresholds(np.zeros(1)), ALL_PAIRS, 300)


class Seeing:
    """Finds all of what it gets; the score is the mean of the pixels."""

    def __init__(self):
        self.shapes = []

    def detect(self, images, sizes_hw, max_det=300, selection=ALL_PAIRS):
        self.shapes.append(tuple(images.shape))
        return [
            Detections(np.array([[0.0, 0, w, h]]), image.mean()[None], np.zeros(1, np.int64))
            for image, (h, w) in zip(images, sizes_hw, strict=True)
        ]


def test_each_view_sees_its_part_at_its_size():
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:20, 30:60] = 255
    views = [whole((40, 60), (32, 32)), View((30, 10, 60, 20), (32, 64))]
    detector = Seeing()
    planes = [view.planes(image, antialias=True) for view in views]
    ((entire, part),) = detect_views(detector, [views], [planes], FILTERS)
    assert detector.shapes == [(1, 3, 32, 32), (1, 3, 32, 64)]
    assert entire.boxes_xyxy.tolist() == [[0, 0, 60, 40]]
    assert part.boxes_xyxy.tolist() == [[30, 10, 60, 20]]
    assert part.scores.tolist() == [1]
    assert entire.scores.item() == pytest.approx(300 / 2400, abs=0.01)


def test_boxes_of_a_mirrored_view_are_those_of_the_image():
    """The view shows columns 10 to 50 from right to left: its columns 5 to 15 are 35 to 45."""
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 35:45] = 255
    view = View((10, 4, 50, 12), (32, 160), is_mirrored=True)
    assert (view.planes(image, antialias=True)[0, 0] > 0.5).nonzero()[0][[0, -1]].tolist() == [
        *(20, 59),
    ]
    box = Detections(np.array([[5, 1, 15, 7]], np.float32), np.ones(1), np.zeros(1, np.int64))
    assert view.to_image(box).boxes_xyxy.tolist() == [[35, 5, 45, 11]]


def test_views_of_one_size_go_in_batches():
    """Of eight, or of as many as there are images."""
    view = [View((left, 0, left + 20, 40), (32, 32)) for left in range(11)]
    planes = [np.zeros((3, 32, 32), np.float32)] * 11
    detector = Seeing()
    found = detect_views(detector, [view, view[:2]], [planes, planes[:2]], FILTERS)
    assert [shape[0] for shape in detector.shapes] == [8, 5]
    assert [len(one) for one in found] == [11, 2]
    assert found[1][1].boxes_xyxy.tolist() == [[1, 0, 21, 40]]
    detector.shapes.clear()
    detect_views(detector, [view[:1]] * 12, [planes[:1]] * 12, FILTERS)
    assert detector.shapes == [(12, 3, 32, 32)]

"""Classes merged into one: labels, boxes of several classes, classes that do not count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtdetr_cli.backends.single_class import SingleClassDetector
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.detections import Detections

A, B, C = [0.0, 0, 1, 1], [0.0, 0, 2, 2], [5.0, 5, 6, 6]


NAMES = {number: str(number) for number in range(80)}


class Fixed:
    """Finds A as class 7 and 2, B as 1, A as 1, C as 2, highest score first."""

    names = NAMES
    preprocessing, description, size_is_free = Preprocessing(), "fixed", True
    network = device = None

    def detect(self, images, sizes_hw, max_det=300):
        boxes, scores = np.array([A, B, A, A, C]), np.array([0.9, 0.8, 0.7, 0.6, 0.5])
        found = Detections(boxes, scores, np.array([7, 1, 2, 1, 2]))
        return [found.keep(slice(max_det))] * len(images)


def test_a_box_of_several_classes_counts_once_with_its_highest_score():
    detector = SingleClassDetector(Fixed(), "object")
    first, second = detector.detect(torch.zeros(2, 3, 8, 8), [(8, 8)] * 2)
    assert first.boxes_xyxy.tolist() == second.boxes_xyxy.tolist() == [A, B, C]
    assert first.scores.tolist() == pytest.approx([0.9, 0.8, 0.5])
    assert first.labels.tolist() == [0, 0, 0]
    assert detector.names == {0: "object"}


def test_detections_of_other_classes_are_left_out():
    (found,) = SingleClassDetector(Fixed(), "object", [2]).detect(torch.zeros(1, 3, 8, 8), [(8, 8)])
    assert found.boxes_xyxy.tolist() == [A, C]
    assert found.scores.tolist() == pytest.approx([0.7, 0.5])
    (none,) = SingleClassDetector(Fixed(), "object", []).detect(torch.zeros(1, 3, 8, 8), [(8, 8)])
    assert len(none) == 0


def test_max_det_is_passed_on_and_the_rest_is_that_of_the_detector():
    detector = SingleClassDetector(Fixed(), "object")
    assert len(detector.detect(torch.zeros(1, 3, 8, 8), [(8, 8)], max_det=1)[0]) == 1
    assert (detector.description, detector.size_is_free) == ("fixed", True)
    assert detector.preprocessing == Preprocessing()
    assert detector.network is None
    assert detector.device is None

"""Suspected label errors on small splits whose errors are planted."""

from __future__ import annotations

import numpy as np
import pytest

from rtdetr_cli.evaluation.label_errors import Kind, LabelErrors, label_errors
from rtdetr_cli.evaluation.matching import Found, Truth

SIDE = 40.0


class Planted:
    """Ten images with four boxes each, two of class 0 and two of class 1, all found with 0.8."""

    def __init__(self) -> None:
        places = [(image, slot) for image in range(10) for slot in range(4)]
        self.labels = [(image, slot % 2, 100.0 * slot, SIDE) for image, slot in places]
        self.detections = [(*label, 0.8) for label in self.labels]
        self.crowds: set[int] = set()

    def truth(self) -> Truth:
        images, classes, x, side = (np.array(column) for column in zip(*self.labels, strict=True))
        crowd = np.isin(np.arange(len(images)), list(self.crowds))
        boxes = np.stack([x, 0 * x, side, side], axis=1)
        return Truth(images, classes, boxes, crowd, side**2)

    def found(self) -> Found:
        columns = (np.array(column) for column in zip(*self.detections, strict=True))
        images, classes, x, side, scores = columns
        return Found(images, classes, np.stack([x, 0 * x, side, side], axis=1), scores)

    def suspicions(self) -> list[tuple[Kind, float, int | None, int | None]]:
        found = label_errors(self.found(), self.truth()).suspicions
        return [(one.kind, round(one.score, 6), one.box, one.detection) for one in found]


@pytest.fixture
def planted() -> Planted:
    return Planted()


def test_a_split_that_agrees_with_the_detector_has_no_suspicions(planted):
    assert planted.suspicions() == []


def test_missing_label(planted):
    planted.detections.append((3, 1, 900.0, SIDE, 0.9))
    # e = 1; every found box has a lower score, u = 1. Of 21 sure detections of class 1, 20 touch a
    # box, and 40 of all 41: l = (20 + 5 * 40 / 41) / (21 + 5).
    labelled = (20 + 5 * 40 / 41) / 26
    assert planted.suspicions() == [(Kind.MISSING, round(labelled, 6), None, 40)]


def test_an_unlabelled_object_is_listed_once(planted):
    planted.detections[:20] = [(*rest, 0.6) for *rest, _ in planted.detections[:20]]
    planted.detections += [(3, 1, 900.0, SIDE, 0.75), (3, 0, 910.0, SIDE, 0.9)]
    assert [(kind, detection) for kind, _, _, detection in planted.suspicions()] == [
        (Kind.MISSING, 41)
    ]


def test_class_swap(planted):
    image, _, x, side = planted.labels[5]
    planted.labels[5] = (image, 0, x, side)
    # e = 1 for class 1, 0 for class 0. s by class: 20 of the 21 boxes of class 0 are found, 39 of
    # all 40; by size, of the boxes around, 0 to 15 of the list: 15 of 16, which is less.
    assert planted.suspicions() == [(Kind.SWAP, round(15 / 16, 6), 5, 5)]


def test_half_a_swap_is_no_suspicion(planted):
    image, label, x, side = planted.labels[5]
    planted.detections.append((image, 1 - label, x, side, 0.9))
    assert planted.suspicions() == []


def test_shifted_box(planted):
    image, label, x, side = planted.labels[6]
    planted.labels[6] = (image, label, x + 16, side)  # IoU 24 / 56
    # All 19 other boxes of class 0 are placed better, of all boxes 39 of 40.
    assert planted.suspicions() == [(Kind.SHIFTED, round((19 + 5 * 39 / 40) / 25, 6), 6, 6)]


def test_spurious_label(planted):
    planted.labels.append((2, 0, 700.0, SIDE))
    suspicions = planted.suspicions()
    # Of the boxes around by size, 30 to 40 of the list, 10 of 11 are found.
    assert suspicions == [(Kind.SPURIOUS, round(10 / 11, 6), 40, None)]


def test_errors_of_all_kinds_are_ranked_by_their_score(planted):
    planted.detections.append((3, 1, 900.0, SIDE, 0.9))
    planted.labels[5] = (1, 0, 100.0, SIDE)
    planted.labels.append((2, 0, 700.0, SIDE))
    suspicions = planted.suspicions()
    assert {kind for kind, *_ in suspicions} == {Kind.MISSING, Kind.SWAP, Kind.SPURIOUS}
    scores = [score for _, score, *_ in suspicions]
    assert scores == sorted(scores, reverse=True)


def test_a_detector_with_low_scores_has_the_same_suspicions(planted):
    planted.detections.append((3, 1, 900.0, SIDE, 0.9))
    planted.labels.append((2, 0, 700.0, SIDE))
    expected = planted.suspicions()
    planted.detections = [(*rest, score / 8) for *rest, score in planted.detections]
    assert len(expected) == 2
    assert planted.suspicions() == expected


def test_crowd_boxes_and_what_is_inside_them_are_not_suspected(planted):
    planted.labels.append((2, 0, 700.0, 4 * SIDE))
    planted.detections.append((2, 1, 720.0, SIDE, 0.9))  # another class, inside
    planted.crowds = {40}
    assert planted.suspicions() == []
    planted.crowds = set()
    assert {kind for kind, *_ in planted.suspicions()} == {Kind.MISSING, Kind.SPURIOUS}


def test_indices_of_boxes_count_crowds_before_them(planted):
    planted.labels.insert(0, (0, 0, 500.0, SIDE))
    planted.crowds = {0}
    planted.labels.append((2, 0, 700.0, SIDE))
    assert [box for _, _, box, _ in planted.suspicions()] == [41]


def test_a_label_of_a_class_that_is_seldom_found_is_no_suspicion(planted):
    planted.labels += [(image, 2, 500.0, SIDE) for image in range(10)]
    assert planted.suspicions() == []
    assert label_errors(planted.found(), planted.truth()).share_found == 40 / 50


def test_a_label_of_a_size_that_is_seldom_found_is_no_suspicion(planted):
    planted.labels += [(image, 0, x, 5.0) for image in range(10) for x in (500.0, 600.0)]
    assert planted.suspicions() == []


def test_nothing_is_suspected_if_the_detector_finds_nothing(planted):
    nothing = planted.found().keep(np.zeros(0, np.int64))
    assert label_errors(nothing, planted.truth()) == LabelErrors([], 0.0)
    planted.detections = [
        (image, label, x + 2000, side, score) for image, label, x, side, score in planted.detections
    ]
    assert planted.suspicions() == []


def test_nothing_is_suspected_without_labels(planted):
    nothing = planted.truth().keep(np.zeros(0, np.int64))
    assert label_errors(planted.found(), nothing) == LabelErrors([], 1.0)

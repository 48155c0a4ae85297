"""Detections at the seams of tiles, on boxes whose objects are known."""

from __future__ import annotations

import numpy as np
import pytest

from rtdetr_cli.core.detections import Detections
from rtdetr_cli.engine.predicting.merging import merge_views
from rtdetr_cli.engine.predicting.views import View, whole

VIEWS = [
    whole((100, 180), (64, 64)),
    View((0, 0, 100, 100), (64, 64)),
    View((80, 0, 180, 100), (64, 64)),
]
"""Two tiles that share the columns from 80 to 100."""


def found(*rows):
    """Rows of x1, y1, x2, y2, score, class."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def merged(*of_views):
    result = merge_views(VIEWS, [found(*rows) for rows in of_views])
    assert (np.diff(result.scores) <= 0).all()
    return [
        (*map(round, box), round(score, 2), label)
        for box, score, label in zip(
            result.boxes_xyxy.tolist(), result.scores.tolist(), result.labels.tolist(), strict=True
        )
    ]


def test_an_object_in_the_overlap_is_found_once_with_its_better_box():
    left, right = (82, 10, 95, 20, 0.8, 0), (82, 10, 95, 21, 0.9, 0)
    assert merged([], [left], [right]) == [(82, 10, 95, 21, 0.9, 0)]


def test_a_cut_box_gives_way_to_the_whole_one_and_leaves_its_score():
    cut, entire = (82, 10, 100, 20, 0.9, 0), (82, 10, 115, 20, 0.7, 0)
    assert merged([], [cut], [entire]) == [(82, 10, 115, 20, 0.9, 0)]


def test_an_object_cut_in_both_tiles_gets_the_box_around_its_parts():
    left, right = (30, 10, 100, 20, 0.6, 0), (80, 10, 140, 20, 0.7, 0)
    assert merged([], [left], [right]) == [(30, 10, 140, 20, 0.7, 0)]


def test_the_whole_image_has_the_box_of_an_object_larger_than_a_tile():
    entire = (10, 5, 170, 95, 0.5, 0)
    parts = [(10, 5, 100, 95, 0.6, 0)], [(80, 5, 170, 95, 0.7, 0)]
    assert merged([entire], *parts) == [(10, 5, 170, 95, 0.7, 0)]
    assert merged([entire], [], []) == [(10, 5, 170, 95, 0.5, 0)]


def test_the_whole_image_adds_no_box_that_is_whole_in_a_tile():
    assert merged([(10, 10, 40, 40, 0.9, 0)], [], []) == []
    assert merged([(10, 10, 40, 40, 0.9, 0)], [(11, 10, 40, 40, 0.5, 0)], []) == [
        (11, 10, 40, 40, 0.5, 0)
    ]


def test_crowded_objects_of_one_tile_stay_apart():
    """Their boxes overlap by more than half; each tile finds both."""
    pair = (82, 10, 95, 20, 0.9, 0), (84, 10, 97, 20, 0.8, 0)
    other = (82, 10, 95, 20, 0.7, 0), (84, 10, 97, 20, 0.85, 0)
    assert merged([], pair, other) == [(82, 10, 95, 20, 0.9, 0), (84, 10, 97, 20, 0.85, 0)]
    assert len(merged([], pair, [])) == 2
    assert len(merged([], pair, other[:1])) == 2


@pytest.mark.parametrize(
    "right",
    [(82, 10, 95, 20, 0.9, 1), (82, 30, 95, 40, 0.9, 0), (92, 10, 115, 20, 0.9, 0)],
    ids=["class", "place", "neighbour"],
)
def test_other_objects_in_the_overlap_are_kept(right):
    assert len(merged([], [(82, 10, 94, 20, 0.8, 0)], [right])) == 2


def test_one_view_is_returned_as_it_is():
    """Boxes may leave the image."""
    only = found((-5, 0, 10, 10, 0.5, 0))
    assert merge_views(VIEWS[:1], [only]) is only
    assert merged([], [], []) == []

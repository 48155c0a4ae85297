"""Metrics under the names that Ultralytics uses."""

from __future__ import annotations

import json
import math

import pytest

from rtdetr_cli.evaluation.metrics import TABLE_COLUMNS

BOXES = [[10, 10, 40, 40, 0], [70, 10, 40, 40, 0]]
FOUND = [[10, 10, 40, 40, 0.9, 0]]


@pytest.fixture
def metrics(make_split):
    """Two cats of which one is found exactly; a class without ground truth."""
    return make_split(BOXES, FOUND).evaluator().compute()


def test_box_has_the_names_of_ultralytics(metrics):
    box = metrics.box
    assert box.map == box.map50 == box.map75 == pytest.approx(51 / 101)
    assert box.maps[0] == pytest.approx(51 / 101)
    assert math.isnan(box.maps[1])
    assert box.ap_class_index.tolist() == [0]
    assert (box.p.tolist(), box.r.tolist()) == ([1.0], [0.5])
    assert box.f1.tolist() == pytest.approx([2 / 3])
    assert (box.mp, box.mr) == (1.0, 0.5)
    assert box.ap.tolist() == box.ap50.tolist() == pytest.approx([51 / 101])
    assert box.mean_results() == [1.0, 0.5, box.map50, box.map]


def test_results_dict_has_the_keys_of_ultralytics(metrics):
    assert metrics.results_dict == {
        "metrics/precision(B)": 1.0,
        "metrics/recall(B)": 0.5,
        "metrics/mAP50(B)": pytest.approx(51 / 101),
        "metrics/mAP50-95(B)": pytest.approx(51 / 101),
        "fitness": pytest.approx(51 / 101),
    }


def test_the_table_shows_all_and_the_classes_that_have_boxes(metrics):
    numbers = ("1", "2", "1.000", "0.500", "0.505", "0.505")
    assert metrics.table() == [("all", *numbers), ("cat", *numbers)]
    assert len(TABLE_COLUMNS) == len(metrics.table()[0])


def test_per_class_keeps_classes_without_boxes(metrics):
    cat, dog = metrics.per_class
    assert (cat.name, cat.images, cat.instances, cat.recall) == ("cat", 1, 2, 0.5)
    assert (dog.name, dog.images, dog.instances) == ("dog", 0, 0)
    assert math.isnan(dog.ap)


def test_to_dict_is_strict_json(metrics):
    plain = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert plain["stats"]["AP50"] == pytest.approx(51 / 101)
    assert plain["stats"]["APs"] == -1
    assert plain["per_class"][1]["ap"] is None
    assert plain["confidence"] == 0.0


def test_without_ground_truth_the_table_shows_dashes(make_split):
    metrics = make_split([], FOUND).evaluator().compute()
    assert metrics.table() == [("all", "1", "0", "-", "-", "-", "-")]
    json.dumps(metrics.to_dict(), allow_nan=False)

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


def test_results_dict_has_the_keys_of_ultralytics(metrics):
    assert metrics.results_dict == {
        "metrics/precision(B)": 1.0,
        "metrics/recall(B)": 0.5,
        "metrics/mAP50(B)": pytest.approx(51 / 101),
        "metrics/mAP50-95(B)": pytest.approx(51 / 101),
        "fitness": pytest.approx(51 / 101),
    }


def test_the_table_shows_all_and_the_classes_that_have_boxes(metrics):
    numbers = ("1", "2", "1.000", "0.500", "0.505", "0.505", "0.000")
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
    assert metrics.table() == [("all", "1", "0", "-", "-", "-", "-", "-")]
    assert (metrics.summary(), metrics.to_csv().count("\n")) == ([], 1)
    json.dumps(metrics.to_dict(), allow_nan=False)


NAMES = """ap_class_index box class_result confusion_matrix curves curves_results fitness keys maps
    mean_results names nt_per_class nt_per_image results_dict speed stats summary task to_csv to_df
    to_json save_dir"""


def test_every_public_name_of_ultralytics_exists(metrics):
    """The names: dir() of DetMetrics of Ultralytics 8.4.190, run as a black box, and save_dir."""
    assert [name for name in NAMES.split() if not hasattr(metrics, name)] == []
    assert metrics.keys == list(metrics.results_dict)[:4]
    assert metrics.mean_results() == list(metrics.results_dict.values())[:4]
    assert metrics.class_result(0) == (1.0, 0.5, *[pytest.approx(51 / 101)] * 2)
    assert metrics.maps.tolist() == metrics.box.maps.tolist()
    assert metrics.ap_class_index.tolist() == [0]
    assert (metrics.nt_per_class.tolist(), metrics.nt_per_image.tolist()) == ([2, 0], [1, 0])
    assert metrics.curves == [
        *("Precision-Recall(B)", "F1-Confidence(B)"),
        *("Precision-Confidence(B)", "Recall-Confidence(B)"),
    ]
    assert [axes for _, _, *axes in metrics.curves_results] == [
        *(["Recall", "Precision"], ["Confidence", "F1"]),
        *(["Confidence", "Precision"], ["Confidence", "Recall"]),
    ]


def test_a_notebook_prints_one_line(metrics):
    ap = "AP=0.5050, AP50=0.5050, AP75=0.5050"  # 51 of 101 recall levels
    assert repr(metrics) == f"Metrics({ap}, 1 images, save_dir=None)"


def test_the_summary_has_the_columns_of_ultralytics_and_the_classes_present(metrics):
    row = {
        **{"Class": "cat", "Images": 1, "Instances": 2},
        **{"Box-P": 1.0, "Box-R": 0.5, "Box-F1": 0.667, "mAP50": 0.505, "mAP75": 0.505},
        "mAP50-95": 0.505,
    }
    assert metrics.summary(decimals=3) == [row]
    assert json.loads(metrics.to_json(decimals=3)) == [row]
    header, line = metrics.to_csv(decimals=3).splitlines()
    assert header == "Class,Images,Instances,Box-P,Box-R,Box-F1,mAP50,mAP75,mAP50-95"
    assert line == "cat,1,2,1.0,0.5,0.667,0.505,0.505,0.505"


def test_the_third_ap_is_the_ap_at_iou_075(make_split):
    # 40 of 50 pixels wide: IoU 0.8, a hit up to 0.80 and not at 0.85, so 7 of 10 thresholds.
    found = [[10, 10, 40, 40, 0.9, 0]]
    (row,) = make_split([[10, 10, 50, 40, 0]], found).evaluator().compute().summary()
    assert (row["mAP50"], row["mAP75"], row["mAP50-95"]) == (1.0, 1.0, 0.7)
    (row,) = make_split([[10, 10, 55, 40, 0]], found).evaluator().compute().summary()
    assert (row["mAP50"], row["mAP75"], row["mAP50-95"]) == (1.0, 0.0, 0.5)  # IoU 0.727

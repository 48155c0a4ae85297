"""AP against pycocotools, live and on stored results of pycocotools 2.0.11."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from rtdetr_cli.core.detections import Detections
from rtdetr_cli.core.errors import UsageError, WeightsError
from rtdetr_cli.evaluation.coco import CocoEvaluator
from rtdetr_cli.evaluation.metrics import STAT_NAMES

FIXTURES = ["cocoapi_fakebbox100", "hotcoco_basic", "hotcoco_edge", "hotcoco_zero"]
CAT = [[10, 10, 40, 40, 0]]


def nothing() -> Detections:
    return Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))


def evaluator_of(ground_truth, results) -> CocoEvaluator:
    """Feed COCO results image by image, the way the engine does."""
    category_ids = [category["id"] for category in ground_truth["categories"]]
    evaluator = CocoEvaluator(ground_truth, category_ids)
    for image_id in {result["image_id"] for result in results}:
        mine = [result for result in results if result["image_id"] == image_id]
        boxes = torch.tensor([result["bbox"] for result in mine], dtype=torch.float64)
        boxes[:, 2:] += boxes[:, :2]
        scores = torch.tensor([result["score"] for result in mine], dtype=torch.float64)
        labels = torch.tensor([category_ids.index(result["category_id"]) for result in mine])
        evaluator.update(image_id, Detections(boxes, scores, labels))
    return evaluator


@pytest.mark.parametrize("name", FIXTURES)
def test_stored_results_of_pycocotools_are_met_to_1e_12(name, shared_data, pycocotools_run):
    folder = shared_data / "eval_fixtures"
    expected = json.loads((folder / "expected.json").read_text())[name]
    ground_truth = json.loads((folder / expected["gt"]).read_text())
    results = json.loads((folder / expected["dt"]).read_text())

    metrics = evaluator_of(ground_truth, results).compute()

    stats = np.array(list(metrics.stats.values()))
    np.testing.assert_allclose(stats, expected["stats"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        stats, pycocotools_run(ground_truth, results).stats, rtol=0, atol=1e-12
    )
    assert [row.name for row in metrics.per_class] == list(expected["per_class_AP"])
    per_class = np.array(list(expected["per_class_AP"].values()), dtype=np.float64)  # None is nan
    np.testing.assert_allclose([row.ap for row in metrics.per_class], per_class, 0, 1e-12)


def test_any_split_gives_the_numbers_of_pycocotools(split, pycocotools_run):
    evaluator = split.evaluator()
    metrics = evaluator.compute()
    oracle = pycocotools_run(split.ground_truth, evaluator.predictions())

    assert list(metrics.stats) == list(STAT_NAMES)
    np.testing.assert_allclose(list(metrics.stats.values()), oracle.stats, rtol=0, atol=1e-12)
    for index, category_id in enumerate(split.category_ids):
        precision = oracle.eval["precision"][:, :, oracle.params.catIds.index(category_id), 0, 2]
        assert metrics.box.ap_per_class[index] == pytest.approx(precision.mean(), abs=1e-12)
        by_iou = precision.mean(axis=1)
        np.testing.assert_allclose(metrics.box.ap_by_iou[index], by_iou, rtol=0, atol=1e-12)


def test_annotation_id_0_counts_as_in_pycocotools_and_is_remarked(split, pycocotools_run):
    split.ground_truth["annotations"][0]["id"] = 0
    evaluator = split.evaluator()
    metrics = evaluator.compute()
    oracle = pycocotools_run(split.ground_truth, evaluator.predictions())
    np.testing.assert_allclose(list(metrics.stats.values()), oracle.stats, rtol=0, atol=1e-12)
    assert "id 0" in metrics.remarks[0]


def test_an_id_0_works_in_a_split_without_detections(make_split):
    split = make_split(CAT, [])
    split.ground_truth["annotations"][0]["id"] = 0
    assert split.evaluator().compute().box.map == 0.0


def test_no_detections_score_zero(make_split):
    metrics = make_split(CAT, []).evaluator().compute()
    assert metrics.box.map == metrics.box.mp == metrics.box.mr == 0.0
    assert metrics.remarks == []


def test_images_that_were_never_added_count_as_without_detections(make_split):
    split = make_split(CAT, [[10, 10, 40, 40, 0.9, 0]])
    split.ground_truth["images"].append({"id": 2})
    split.ground_truth["annotations"].append(split.ground_truth["annotations"][0] | {"id": 2})
    split.ground_truth["annotations"][1]["image_id"] = 2
    # Recall 0.5 reaches 51 of COCO's 101 recall steps.
    assert split.evaluator().compute().box.map == pytest.approx(51 / 101)


def test_without_ground_truth_ap_is_undefined_with_a_remark(make_split):
    metrics = make_split([], [[10, 10, 40, 40, 0.9, 0]]).evaluator().compute()
    assert set(metrics.stats.values()) == {-1.0}
    assert math.isnan(metrics.box.map)
    assert math.isnan(metrics.box.mp)
    assert np.isnan(metrics.box.maps).all()
    assert metrics.remarks == ["no ground-truth box in 1 image, so AP is not defined"]


def test_a_false_alarm_in_an_empty_image_lowers_ap(make_split):
    split = make_split(CAT, [[10, 10, 40, 40, 0.5, 0]])
    split.ground_truth["images"].append({"id": 2})
    split.detections[2] = Detections(
        torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([0.9]), torch.tensor([0])
    )
    assert split.evaluator().compute().box.map == pytest.approx(0.5)


def test_a_detection_on_a_crowd_box_is_ignored(make_split):
    found = [[10, 10, 40, 40, 0.5, 0], [60, 60, 20, 20, 0.9, 0], [70, 60, 20, 20, 0.8, 0]]
    split = make_split([*CAT, [55, 55, 100, 100, 0]], found, crowd=[0, 1])
    metrics = split.evaluator().compute()
    assert metrics.box.map == pytest.approx(1.0)
    assert metrics.box.mp == metrics.box.mr == 1.0
    assert metrics.confusion_matrix.matrix.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_a_second_update_replaces_the_first(make_split):
    split = make_split(CAT, [[10, 10, 40, 40, 0.9, 0]])
    evaluator = split.evaluator()
    evaluator.update(1, nothing())
    assert evaluator.predictions() == []
    evaluator.update(1, split.detections[1])
    assert evaluator.compute().box.map == pytest.approx(1.0)


def test_predictions_are_coco_results_without_rounding(make_split):
    evaluator = make_split([], [[1.1, 2.2, 10, 20, 0.3, 1]]).evaluator()
    (result,) = json.loads(json.dumps(evaluator.predictions()))
    x1, y1, x2, y2 = np.float32([1.1, 2.2, 11.1, 22.2]).astype(float)
    assert result == {
        "image_id": 1,
        "category_id": 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "score": float(np.float32(0.3)),
    }


def test_an_image_of_another_split_is_rejected(make_split):
    with pytest.raises(ValueError, match="image id 9"):
        make_split(CAT, []).evaluator().update(9, nothing())


@pytest.mark.parametrize("where", ["boxes_xyxy", "scores"])
def test_a_non_finite_value_is_reported_as_a_fault_of_the_weights(where, make_split):
    split = make_split(CAT, [[10, 10, 40, 40, 0.9, 0]])
    getattr(split.detections[1], where).view(-1)[0] = math.nan
    with pytest.raises(WeightsError, match="image id 1"):
        split.evaluator()


def test_a_class_that_the_data_set_lacks_is_named(make_split):
    with pytest.raises(UsageError, match=r"class 2, but the data set has only 2 classes"):
        make_split(CAT, [[10, 10, 40, 40, 0.9, 2]]).evaluator()


def test_the_libraries_print_nothing(split, capfd):
    split.evaluator().compute()
    split.ground_truth["annotations"][0]["id"] = 0
    split.evaluator().compute()
    assert capfd.readouterr() == ("", "")

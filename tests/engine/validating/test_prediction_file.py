"""predictions.json: ids by convention, there and back, and files that are not one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rtdetr_cli.core.coco_classes import COCO_NAMES
from rtdetr_cli.core.detections import Detections
from rtdetr_cli.core.errors import DataError
from rtdetr_cli.data.dataset import DetectionDataset, Record
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.engine.validating.prediction_file import (
    read_predictions,
    write_predictions,
    written_category_ids,
)
from rtdetr_cli.evaluation.coco import CocoEvaluator

ROW = {"image_id": 0, "category_id": 2, "bbox": [1, 2, 3.5, 4], "score": 0.5}


@pytest.fixture
def dataset(squares: Path) -> DetectionDataset:
    return open_split(load_data(squares / "data.yaml"), "val")


def test_detections_are_the_same_after_writing_and_reading(dataset, tmp_path):
    first = dataset.records[0].image_id
    evaluator = CocoEvaluator(dataset.ground_truth(), dataset.category_ids)
    boxes = torch.tensor([[1.0, 2, 30.25, 40], [5, 5, 9, 9]])
    evaluator.update(first, Detections(boxes, torch.tensor([0.75, 0.5]), torch.tensor([1, 0])))
    write_predictions(tmp_path, dataset, evaluator.predictions())

    again = read_predictions(tmp_path / "predictions.json", dataset)
    assert again.predictions() == evaluator.predictions()


def test_coco_val2017_has_the_category_ids_of_coco(tmp_path):
    image = Record(tmp_path / "val2017" / "1.jpg", (8, 8), 1, *[np.zeros((0, 4))] * 3)
    coco = DetectionDataset(dict(COCO_NAMES), list(range(80)), [image])
    ids = list(written_category_ids(coco).values())
    # person, bicycle, stop sign, toothbrush of instances_val2017.json
    assert (ids[0], ids[1], ids[11], ids[79], len(ids)) == (1, 2, 13, 90, 80)
    other = replace(coco, records=[replace(image, path=tmp_path / "val" / "1.jpg")])
    assert list(written_category_ids(other).values()) == list(range(1, 81))


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ({"stats": {}}, "is not a list of detections"),
        ([ROW, 3], r"\[1\] is not a detection"),
        ([{**ROW, "bbox": [1, 2, 3]}], "needs bbox = four finite numbers"),
        ([{**ROW, "bbox": [1, 2, 3, True]}], "needs bbox = four finite numbers"),
        ([{**ROW, "score": float("nan")}], "needs bbox = four finite numbers"),
        ([{**ROW, "score": 10**400}], "needs bbox = four finite numbers"),
        ([{**ROW, "image_id": [0]}], "neither a number nor a text"),
        ([{**ROW, "image_id": 77}], r"\[0\].image_id is 77, which the split does not have"),
        ([{**ROW, "category_id": 3}], r"the split has none of its categories \(3\)"),
    ],
    ids=str,
)
def test_a_file_with_something_else_is_refused_by_row(rows, complaint, dataset, tmp_path):
    path = tmp_path / "found.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=complaint):
        read_predictions(path, dataset)


def test_rows_are_counted_as_in_the_file_when_images_are_skipped(dataset, tmp_path):
    left_out = {dataset.records[0].path.parent / "5.png": "damaged"}
    path = tmp_path / "found.json"
    path.write_text(json.dumps([{**ROW, "image_id": 5}, ROW, {**ROW, "image_id": 77}]))
    with pytest.raises(DataError, match=r"\[2\].image_id is 77"):
        read_predictions(path, replace(dataset, skipped=left_out))


def test_detections_of_other_classes_are_left_out_and_counted(dataset, tmp_path, capsys):
    path = tmp_path / "found.json"
    path.write_text(json.dumps([ROW, {**ROW, "category_id": 7}, {**ROW, "category_id": 7}]))
    assert len(read_predictions(path, dataset).predictions()) == 1
    assert "2 of 3 detections are of categories that the split does not have (7)" in (
        capsys.readouterr().err
    )


def test_categories_in_the_file_do_not_depend_on_the_order_of_the_classes(dataset):
    """A model with the classes in another order keeps the category id of each."""
    turned = replace(dataset, names={0: "red", 1: "green"}, category_ids=[1, 0])
    assert written_category_ids(turned) == written_category_ids(dataset) == {0: 1, 1: 2}


def test_a_file_that_is_absent_or_broken_is_refused(dataset, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_predictions(tmp_path / "none.json", dataset)
    (tmp_path / "broken.json").write_text("[1,\n2")
    with pytest.raises(DataError, match="broken json"):
        read_predictions(tmp_path / "broken.json", dataset)


def test_images_that_share_an_id_cannot_be_told_apart(dataset, tmp_path):
    one = dataset.records[0]
    twin = replace(one, image_id=99, path=one.path.parent / "more" / one.path.name)
    (tmp_path / "found.json").write_text(json.dumps([ROW]))
    both = replace(dataset, records=[*dataset.records, twin])
    with pytest.raises(DataError, match="two images of the split share image_id 0"):
        read_predictions(tmp_path / "found.json", both)

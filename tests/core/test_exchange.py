"""Detections in other programs' formats say the same as the boxes."""

import importlib
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from rtdetr_cli.core.boxes import Boxes
from rtdetr_cli.core.errors import BackendError, UsageError
from rtdetr_cli.core.exchange import coco_results, image_id, supervision_detections

ROWS = np.array([[10, 20, 50, 40.5, 0.9, 1], [-5, 90, 30, 110, 0.5, 0]], np.float32)
TRACKED = np.insert(ROWS, 4, [7, 3], axis=1)
NAMES = {0: "person", 1: "traffic light"}


def test_coco_results_are_corner_and_size():
    assert coco_results(Boxes(ROWS, (100, 200)), 139, {0: 1, 1: 10}) == [
        {"image_id": 139, "category_id": 10, "bbox": [10, 20, 40, 20.5], "score": 0.9},
        {"image_id": 139, "category_id": 1, "bbox": [-5, 90, 35, 20], "score": 0.5},
    ]
    rows = coco_results(Boxes(TRACKED, (100, 200)), "a", {0: 1, 1: 10})
    assert [row["track_id"] for row in rows] == [7, 3]
    assert coco_results(Boxes(ROWS[:0], (100, 200)), 1, {}) == []


def test_a_class_without_an_id_is_named():
    with pytest.raises(UsageError, match="no id for class 1"):
        coco_results(Boxes(ROWS, (100, 200)), 1, {0: 1})


@pytest.mark.parametrize(
    ("stem", "expected"), [("000000000139", 139), ("bus", "bus"), ("-1", "-1"), ("1.5", "1.5")]
)
def test_images_have_their_number_or_name(stem, expected):
    assert image_id(stem) == expected


def test_supervision_gets_boxes_scores_names_and_ids(monkeypatch):
    """With the keyword arguments of supervision 0.31.2, checked against the library itself."""
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=SimpleNamespace))
    found = supervision_detections(Boxes(TRACKED, (100, 200)), NAMES)
    np.testing.assert_array_equal(found.xyxy, ROWS[:, :4])
    np.testing.assert_array_equal(found.confidence, ROWS[:, 4])
    assert found.class_id.tolist() == [1, 0]
    assert found.tracker_id.tolist() == [7, 3]
    assert found.data["class_name"].tolist() == ["traffic light", "person"]
    plain = supervision_detections(Boxes(ROWS[:0], (100, 200)), NAMES)
    assert plain.tracker_id is None
    assert plain.data["class_name"].shape == (0,)


def test_a_missing_supervision_is_one_sentence(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("rtdetr_cli.core.exchange.import_module", absent)
    with pytest.raises(BackendError, match="pip install supervision"):
        supervision_detections(Boxes(ROWS, (100, 200)), NAMES)


def test_the_library_itself_agrees():
    supervision = pytest.importorskip("supervision")
    importlib.import_module("supervision")
    found = supervision_detections(Boxes(TRACKED, (100, 200)), NAMES)
    assert isinstance(found, supervision.Detections)
    assert len(found[found.class_id == 1]) == 1
    assert supervision.Detections.merge([found, found]).tracker_id.tolist() == [7, 3, 7, 3]

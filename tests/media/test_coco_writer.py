"""predictions.json holds the boxes of all images, and appears when it is whole."""

import json

import numpy as np

from rtdetr_cli.core.results import Results
from rtdetr_cli.media.coco_writer import CocoWriter

ROWS = np.array([[1, 2, 9, 8, 0.9, 0]], np.float32)


def results(path, rows=ROWS):
    return Results(np.zeros((16, 16, 3), np.uint8), path, {0: "cell"}, rows)


def test_rows_of_all_images_in_one_array(tmp_path):
    writer = CocoWriter(tmp_path / "predictions.json")
    writer.write(results("in/007.jpg"), "007")
    writer.write(results("in/empty.jpg", None), "empty")
    writer.write(results("other/a\udcff.png"), "a_")
    assert not (tmp_path / "predictions.json").exists()
    writer.close()
    rows = json.loads((tmp_path / "predictions.json").read_text())
    assert [row["image_id"] for row in rows] == [7, "a_"]
    bbox = {"category_id": 1, "bbox": [1, 2, 8, 6], "score": 0.9}
    assert rows[0] == {"image_id": 7, **bbox, "file_name": "007.jpg"}
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.json"]


def test_no_boxes_are_an_empty_array(tmp_path):
    writer = CocoWriter(tmp_path / "predictions.json")
    writer.write(results("a.jpg", None), "a")
    writer.close()
    assert json.loads((tmp_path / "predictions.json").read_text()) == []

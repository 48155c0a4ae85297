from __future__ import annotations

import json

import numpy as np
import pytest

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.data.coco import read_coco
from rtdetr_cli.data.yolo import list_images, read_yolo


def read(path, names=None):
    return read_coco(path, [path.parent, path.parent.parent / "train"], names)


def box(**changes):
    return {"id": 1, "image_id": 30, "category_id": 7, "bbox": [1, 2, 3, 4]} | changes


def test_own_ids_stay_in_the_ground_truth(coco_json):
    dataset = read(coco_json())
    assert dataset.names == {0: "cat", 1: "dog"}
    assert dataset.category_ids == [3, 7]
    assert [record.image_id for record in dataset.records] == [30, 10]
    truth = dataset.ground_truth()
    assert truth["categories"] == [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    assert truth["annotations"][0] == {
        "id": 0,
        "image_id": 30,
        "category_id": 7,
        "bbox": [1.5, 2, 10, 20],
        "area": 99,
        "iscrowd": 0,
    }


def test_crowd_is_marked_and_not_counted(coco_json):
    dataset = read(coco_json())
    assert dataset.records[0].iscrowd.tolist() == [False, True]
    assert dataset.num_boxes == 1
    np.testing.assert_allclose(dataset.records[0].boxes_xyxy[0], [1.5, 2, 11.5, 22])


def test_names_choose_the_order(coco_json):
    dataset = read(coco_json(), {0: "dog", 1: "cat"})
    assert dataset.category_ids == [7, 3]
    assert dataset.records[0].labels.tolist() == [0, 1]


def test_name_without_category_is_an_error(coco_json):
    with pytest.raises(DataError, match=r"has no category cats; did you mean cat\?"):
        read(coco_json(), {0: "cats"})


def test_unused_supercategory_of_roboflow_is_left_out(coco_json):
    categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 7, "name": "dog", "supercategory": "pets"},
        {"id": 3, "name": "cat", "supercategory": "pets"},
    ]
    assert read(coco_json(categories=categories)).category_ids == [3, 7]


def test_size_comes_from_the_image_where_the_json_has_none(coco_json):
    images = [{"id": 30, "file_name": "a.png"}]
    assert read(coco_json(images=images)).records[0].size_hw == (40, 60)


def test_box_without_area_is_kept_for_evaluation_only(coco_json):
    dataset = read(coco_json(annotations=[box(bbox=[1, 2, 0, 4]), box()]))
    assert dataset.num_boxes == 1
    assert len(dataset.ground_truth()["annotations"]) == 2
    assert dataset.notes == ["boxes without area ignored in training: 1 (first: annotations[0])"]


@pytest.mark.parametrize(
    ("annotation", "sentence"),
    [
        (box(category_id=8), r"annotations\[0\]: category_id 8 is not in categories"),
        (box(image_id=31), "image_id 31: annotated, but not among the images"),
        (box(bbox=[1, 2, 3]), r"annotations\[0\]: bbox \[1, 2, 3\] is not four finite numbers"),
        (
            box(bbox=[1, 2, 3, float("nan")]),
            r"annotations\[0\]: bbox .* is not four finite numbers",
        ),
        (box(bbox=[50, 2, 13, 4]), r"a\.png: box outside the image of 60x40"),
        ({"id": 1, "bbox": [1, 2, 3, 4]}, r"annotations\[0\] has no image_id"),
    ],
)
def test_wrong_annotation_is_named(coco_json, annotation, sentence):
    with pytest.raises(DataError, match=rf"instances_train\.json: {sentence}"):
        read(coco_json(annotations=[annotation]))


IMAGE = {"id": 30, "file_name": "a.png", "height": 40, "width": 60}
CATEGORY = {"id": 7, "name": "dog"}


@pytest.mark.parametrize(
    ("key", "entry", "sentence"),
    [
        ("images", "a.png", r"\[0\] is not a mapping of keys"),
        ("images", IMAGE | {"id": [1]}, r"\[0\]\.id is \[1\], expected a whole number >= 0"),
        ("images", IMAGE | {"id": "30"}, r"\[0\]\.id is '30', expected a whole number"),
        ("images", IMAGE | {"id": True}, r"\[0\]\.id is True"),
        ("images", IMAGE | {"file_name": None}, r"\[0\]\.file_name is None, expected a text"),
        (
            "images",
            IMAGE | {"height": "40"},
            r"\[0\]\.height is '40', expected 1 to 1000000 pixels",
        ),
        ("images", IMAGE | {"width": 10**400}, r"\[0\]\.width is 1000"),
        ("images", IMAGE | {"width": float("nan")}, r"\[0\]\.width is nan"),
        ("categories", CATEGORY | {"id": 1.5}, r"\[0\]\.id is 1\.5"),
        ("categories", CATEGORY | {"name": {}}, r"\[0\]\.name is {}, expected a text"),
        ("categories", CATEGORY | {"name": "\ud800"}, r"\[0\]\.name is '\\ud800', expected a text"),
        ("annotations", box(category_id={}), r"\[0\]\.category_id is {}"),
        ("annotations", box(id=-1), r"\[0\]\.id is -1, expected a whole number >= 0"),
        ("annotations", box(iscrowd=None), r"\[0\]\.iscrowd is None, expected 0 or 1"),
        ("annotations", box(area="99"), r"\[0\]\.area is '99', expected a number"),
        ("annotations", box(area=float("inf")), r"\[0\]\.area is inf"),
        ("annotations", box(bbox=[10**400, 2, 3, 4]), r"\[0\]: bbox .* is not four finite numbers"),
        ("annotations", box(bbox=[[[[]]]] * 4), r"\[0\]: bbox .* is not four finite numbers"),
    ],
)
def test_a_value_of_another_kind_is_named(coco_json, key, entry, sentence):
    with pytest.raises(DataError, match=rf"instances_train\.json: {key}{sentence}"):
        read(coco_json(**{key: [entry]}))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
        ("9" * 5000, "a number with too many digits"),
        ("", "Expecting value"),
    ],
)
def test_json_without_bounds_is_a_sentence(tmp_path, text, sentence):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=rf"x\.json.*: broken json, {sentence}"):
        read(tmp_path / "x.json")


def test_broken_json_is_named_with_its_line(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"images": [],\n oops}', "utf-8")
    with pytest.raises(DataError, match=r"x\.json:2: broken json"):
        read(path)


def test_other_json_is_refused(coco_json):
    with pytest.raises(DataError, match="is not a COCO json, it has no list of annotations"):
        read(coco_json(annotations=None))


def test_missing_images_are_counted(coco_json):
    images = [{"id": number, "file_name": f"{name}.png"} for number, name in enumerate("acd")]
    with pytest.raises(DataError, match=r"c\.png: no such image; instances_train\.json lists 2"):
        read(coco_json(images=images, annotations=[]))


def test_images_in_no_folder_say_where_was_looked(coco_json):
    path = coco_json()
    with pytest.raises(DataError, match=r"its first image a\.png is in none of .*annotations"):
        read_coco(path, [path.parent], None)


def test_bccd_json_equals_its_yolo_labels(shared_data):
    root = shared_data / "bccd"
    ours = read_coco(root / "annotations/instances_val.json", [root / "images/val"], None)
    yolo = read_yolo(list_images(root / "images/val"), ours.names)
    assert (len(ours), ours.num_boxes, yolo.num_boxes) == (87, 1137, 1137)  # README of the data
    by_name = {record.path: record for record in yolo.records}
    for record in ours.records:
        other = by_name[record.path]
        np.testing.assert_allclose(record.boxes_xyxy, other.boxes_xyxy, atol=1e-3)
        assert (record.labels == other.labels).all()


def test_coco128_keeps_gaps_crowds_and_bytes_of_the_official_json(shared_data):
    root = shared_data / "coco128"
    path = root / "annotations/instances_train2017.json"
    dataset = read_coco(path, [root / "images/train2017"], None)
    assert dataset.num_boxes == 929  # README of the data: 939 = 929 + 10 crowd
    assert sum(int(record.iscrowd.sum()) for record in dataset.records) == 10
    assert dataset.category_ids[-1] == 90
    assert len(dataset.category_ids) == 80
    official = json.loads(path.read_text("utf-8"))["annotations"]
    ours = dataset.ground_truth()["annotations"]
    assert [entry["bbox"] for entry in ours] == [entry["bbox"] for entry in official]
    assert [entry["area"] for entry in ours] == [entry["area"] for entry in official]

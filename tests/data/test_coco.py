from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

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
    with pytest.raises(
        DataError, match=r"annotations\[1\]: class cat is not among names; did you mean cats\?"
    ):
        read(coco_json(), {0: "cats", 1: "dog"})


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
    note = "boxes without area ignored in training: 1 (first: annotations[0])"
    assert note in dataset.notes


@pytest.mark.parametrize(
    ("annotation", "sentence"),
    [
        (box(category_id=8), r"annotations\[0\]: category_id 8 is not in categories"),
        (box(image_id=31), r"annotations\[0\]: image_id 31 is not among the images"),
        (box(bbox=[1, 2, 3]), r"annotations\[0\]: bbox \[1, 2, 3\] is not four finite numbers"),
        (
            box(bbox=[1, 2, 3, float("nan")]),
            r"annotations\[0\]: bbox .* is not four finite numbers",
        ),
        (box(bbox=[50, 2, 21, 4]), r"annotations\[0\]: box outside the image of 60x40"),
        (box(bbox=[5, 2, -2, 4]), r"annotations\[0\]: bbox .* has a negative width or height"),
        (box(bbox=None), r"annotations\[0\]: bbox None is not four finite numbers"),
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
        ("images", IMAGE | {"id": [1]}, r"\[0\]\.id is \[1\], expected a whole number or a text"),
        ("images", IMAGE | {"id": True}, r"\[0\]\.id is True"),
        ("images", IMAGE | {"file_name": None}, r"\[0\]\.file_name is None, expected a text"),
        ("categories", CATEGORY | {"id": 1.5}, r"\[0\]\.id is 1\.5"),
        ("categories", CATEGORY | {"name": {}}, r"\[0\]\.name is {}, expected a text"),
        ("categories", CATEGORY | {"name": "\ud800"}, r"\[0\]\.name is '\\ud800', expected a text"),
        ("annotations", box(category_id={}), r"\[0\]\.category_id is {}"),
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
    with pytest.raises(DataError, match=r"c\.png: no such image \(and 1 more error\)"):
        read(coco_json(images=images, annotations=[]))


def test_images_in_no_folder_say_where_was_looked(coco_json):
    path = coco_json()
    with pytest.raises(DataError, match=r"its first image a\.png is in none of .*annotations"):
        read_coco(path, [path.parent], None)


def test_ids_may_be_numbers_or_texts_anywhere(coco_json):
    images = [{"id": "30", "file_name": "a.png"}, {"id": "x/b", "file_name": "b.png"}]
    categories = [{"id": "7", "name": "dog"}, {"id": "CAT", "name": "cat"}]
    boxes = [
        box(image_id=30.0, category_id="7.0", id="first"),
        box(image_id="x/b", category_id="CAT", id=1.5),
    ]
    dataset = read(coco_json(images=images, categories=categories, annotations=boxes))
    assert dataset.names == {0: "dog", 1: "cat"}  # numbers first
    assert [record.labels.tolist() for record in dataset.records] == [[0], [1]]
    assert [record.image_id for record in dataset.records] == [30, 31]
    assert dataset.image_texts == {31: "x/b"}
    assert dataset.category_texts == {8: "CAT"}
    assert [one["id"] for one in dataset.ground_truth()["annotations"]] == [1, 2]


@pytest.mark.parametrize("odd", [None, "x", [], {"a": 1}, float("nan"), -(10**400)])
def test_an_optional_key_of_another_kind_is_as_if_absent(coco_json, odd):
    keys = ("id", "iscrowd", "area", "segmentation", "attributes")
    boxes = [box(), box(image_id=10, bbox=[5, 5, 20, 10])]
    changed = [{**one, **dict.fromkeys(keys, odd)} for one in boxes]
    images = [
        {"id": number, "file_name": name, "height": odd, "width": odd, "license": odd}
        for number, name in ((30, "a.png"), (10, "b.png"))
    ]
    category = {"id": 7, "name": "dog", "supercategory": odd}
    dataset = read(coco_json(images=images, categories=[category], annotations=changed))
    assert [record.size_hw for record in dataset.records] == [(40, 60), (40, 60)]
    assert dataset.ground_truth()["annotations"] == [
        {**boxes[0], "id": 1, "area": 12, "iscrowd": 0},
        {**boxes[1], "id": 2, "area": 200, "iscrowd": 0},
    ]


def test_annotation_ids_that_repeat_are_numbered_again(coco_json):
    boxes = [box(), box(bbox=[9, 9, 9, 9]), box(id=7, image_id=10)]
    dataset = read(coco_json(annotations=boxes))
    assert [one["id"] for one in dataset.ground_truth()["annotations"]] == [1, 2, 3]
    assert "annotation ids that repeat, so all are numbered again: 1 (first: id 1)" in dataset.notes
    assert dataset.num_boxes == 3


def test_an_annotation_listed_twice_under_one_id_counts_once(coco_json):
    dataset = read(coco_json(annotations=[box(), box(), box(id=2)]))
    assert dataset.num_boxes == 2


def test_an_image_id_of_two_files_is_an_error_that_names_both(coco_json):
    images = [IMAGE, IMAGE | {"file_name": "b.png"}]
    with pytest.raises(DataError, match=r"image id 30 is that of a\.png and b\.png"):
        read(coco_json(images=images))


def test_every_mistake_is_listed(coco_json):
    with pytest.raises(DataError, match=r"\(and 2 more errors\)$") as caught:
        read(coco_json(annotations=[box(bbox=3), box(), box(image_id=31), box(category_id=4)]))
    found = [problem.rpartition("json: ")[2] for problem in caught.value.problems]
    assert found == [
        "annotations[0]: bbox 3 is not four finite numbers x, y, w, h (a.png)",
        "annotations[2]: image_id 31 is not among the images",
        "annotations[3]: category_id 4 is not in categories (a.png)",
    ]


def test_a_box_that_overhangs_is_clipped_for_training_and_evaluation(coco_json):
    dataset = read(coco_json(annotations=[box(bbox=[50, 30, 14, 12]), box(id=2)]))
    assert dataset.records[0].boxes_xyxy[0].tolist() == [50, 30, 60, 40]
    assert dataset.ground_truth()["annotations"][0]["bbox"] == [50, 30, 10, 10]
    note = "boxes that overhang the image clipped to it: 1 (first: annotations[0])"
    assert note in dataset.notes


@pytest.mark.parametrize(
    "polygons", [[[1, 2, 11, 2, 5, 22]], [1, 2, 11, 22], [[1, 2, 5, 5], [7, 8, 11, 22]]]
)
def test_a_missing_box_is_that_of_the_polygons(coco_json, polygons):
    annotation = {"id": 1, "image_id": 30, "category_id": 7, "segmentation": polygons}
    dataset = read(coco_json(annotations=[annotation]))
    assert dataset.records[0].boxes_xyxy.tolist() == [[1, 2, 11, 22]]


def test_a_run_length_mask_makes_no_box(coco_json):
    mask = {"size": [40, 60], "counts": [3, 4]}
    annotation = {"id": 1, "image_id": 30, "category_id": 7, "segmentation": mask}
    with pytest.raises(DataError, match=r"annotations\[0\] has no bbox"):
        read(coco_json(annotations=[annotation]))


def test_a_size_that_the_image_contradicts_is_not_used(coco_json):
    dataset = read(coco_json(images=[IMAGE | {"height": 400, "width": 600}]))
    assert dataset.records[0].size_hw == (40, 60)
    assert any("sizes in the annotations that differ" in note for note in dataset.notes)


def test_a_size_before_the_rotation_of_exif_is_an_error(coco_json):
    path = coco_json(images=[IMAGE | {"file_name": "t.jpg"}], annotations=[box()])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(path.parent / "t.jpg", exif=exif)
    with pytest.raises(DataError, match=r"t\.jpg: its annotations state 60x40 .* to 40x60"):
        read(path)


def test_images_lie_in_several_folders_under_listed_or_bare_names(coco_json):
    images = [IMAGE | {"file_name": "old\\folder\\a.png"}, {"id": 10, "file_name": "sub/c.png"}]
    path = coco_json(images=images)
    (path.parent / "sub").mkdir()
    Image.new("RGB", (60, 40)).save(path.parent / "sub" / "c.png")
    found = [record.path for record in read(path).records]
    assert found == [path.parents[1] / "train" / "a.png", path.parent / "sub" / "c.png"]


def test_two_images_of_one_bare_name_are_not_guessed(coco_json):
    images = [IMAGE | {"file_name": "x/a.png"}, IMAGE | {"id": 10, "file_name": "y/a.png"}]
    with pytest.raises(DataError, match=r"its first image x/a\.png is in none of"):
        read(coco_json(images=images))


def test_bad_images_are_left_out_with_their_boxes(coco_json):
    path = coco_json(annotations=[box(bbox=[50, 2, 21, 4]), box(id=2, image_id=10), box(id=3)])
    dataset = read_coco(path, [path.parents[1] / "train"], None, "skip")
    assert [record.image_id for record in dataset.records] == [10]
    assert [one["id"] for one in dataset.ground_truth()["annotations"]] == [2]
    assert [place.name for place in dataset.skipped] == ["a.png"]
    with pytest.raises(DataError, match=r"; bad_images=skip leaves such images out$"):
        read_coco(path, [path.parents[1] / "train"], None, "error")


def test_one_id_of_two_names_is_an_error(coco_json):
    with pytest.raises(DataError, match="category id 7 is that of dog and of cow"):
        read(coco_json(categories=[CATEGORY, {"id": 7, "name": "cow"}, CATEGORY]))


def test_a_class_that_is_its_own_parent_stays(coco_json):
    categories = [
        {"id": 0, "name": "person", "supercategory": "person"},
        {"id": 7, "name": "dog", "supercategory": "person"},
    ]
    assert read(coco_json(categories=categories, annotations=[box()])).category_ids == [0, 7]


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

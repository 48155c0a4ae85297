from __future__ import annotations

import json

import pytest

from rtdetr_cli.data.coco_json import as_id, forget_json, load_json, parse_annotation


@pytest.mark.parametrize(
    ("value", "id_"),
    [
        (7, 7),
        (7.0, 7),
        ("7", 7),
        (" 7.0 ", 7),
        ("-3", -3),
        ("007", "007"),  # not 7: names of files are often ids
        ("img_7", "img_7"),
        (2**60, str(2**60)),  # exact, where float64 is not
        (str(2**60), str(2**60)),
        (0, 0),
        ("0", 0),
    ],
)
def test_ids_are_numbers_and_texts(value, id_):
    assert as_id(value) == id_


@pytest.mark.parametrize("value", [None, True, [], {}, "", 1.5, float("nan"), "\ud800"])
def test_other_values_are_no_ids(value):
    assert as_id(value) is None


@pytest.mark.parametrize(
    ("flag", "crowd"), [(1, True), (1.0, True), ("1", True), (True, True), (0, False), ("x", False)]
)
def test_crowd_flags(flag, crowd):
    entry = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": flag}
    assert parse_annotation(entry).iscrowd is crowd


def test_the_last_json_is_kept_until_it_changes_or_is_forgotten(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    first = load_json(path)
    assert load_json(path) is first
    forget_json()
    assert load_json(path) is not first

"""Checks of the boxes of each split; tests/engine/checking/test_planted.py has them on files."""

from __future__ import annotations

from pathlib import Path

from rtdetr_cli.core.findings import Finding
from rtdetr_cli.data.checks.labels import check_labels
from rtdetr_cli.data.dataset import DetectionDataset, LabelledBox, make_record


def found(boxes: list[LabelledBox], size_hw=(640, 640), num_queries=300) -> dict[str, Finding]:
    record = make_record(1, Path("/data/1.png"), (100, 200), boxes, "/data/a.json: annotations[")
    dataset = DetectionDataset({0: "cat", 1: "dog"}, [0, 1], [record])
    return {one.id: one for one in check_labels({"train": dataset}, size_hw, num_queries)}


def test_the_closest_pair_comes_first_with_both_boxes_marked():
    boxes = [
        LabelledBox(0, [0, 0, 100, 90], place=3),
        LabelledBox(0, [0, 0, 99, 90], place=8),  # IoU 0.99
        LabelledBox(0, [0, 0, 96, 90], place=9),  # 0.96, and 0.9697 with the second
        LabelledBox(0, [0, 0, 94, 90], place=10),  # 0.979 with the third, 0.949 with the second
    ]
    one = found(boxes)["box-near-identical"]
    assert one.count == 4
    assert one.examples[0].where == "/data/a.json: annotations[8]"
    assert one.examples[0].what == "cat, IoU 0.990 with cat at 3"
    assert [box.corners[2] for box in one.examples[0].boxes] == [99, 100]


def test_two_classes_at_one_place_are_another_finding_and_crowds_are_none():
    place = [0.0, 0.0, 100.0, 90.0]
    assert found([LabelledBox(0, place), LabelledBox(1, place)]).keys() == {"box-of-two-classes"}
    assert found([LabelledBox(0, place), LabelledBox(0, place, crowd=True)]) == {}


def test_a_box_is_tiny_at_the_size_of_the_input_not_of_the_image():
    """1 pixel of 200 is 3.2 pixels of 640, and 1.6 of 320; of 100 it is 6.4, and 3.2 of 320."""
    boxes = [LabelledBox(0, [10, 10, 11, 40], place=5), LabelledBox(0, [50, 10, 90, 11], place=6)]
    assert found(boxes) == {}
    one = found(boxes, (320, 320))["box-tiny"]
    assert (one.count, one.examples[0].where) == (1, "/data/a.json: annotations[5]")
    assert one.examples[0].what == "1.6x96 at 320x320"
    assert found(boxes, (160, 640))["box-tiny"].examples[0].what == "1.3e+02x1.6 at 640x160"


def test_as_many_boxes_as_queries_are_enough():
    boxes = [LabelledBox(0, [x, 0, x + 8, 8]) for x in range(0, 100, 10)]
    assert found(boxes, num_queries=10) == {}
    one = found(boxes, num_queries=9)["image-with-many-boxes"]
    assert (one.count, one.examples[0].what) == (1, "10 boxes, 9 queries")

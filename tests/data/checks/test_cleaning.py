from __future__ import annotations

from pathlib import Path

import pytest

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.data.checks.cleaning import (
    with_joined_entries,
    without_doubtful_boxes,
    without_repeats,
)
from rtdetr_cli.data.checks.similar import image_signature
from rtdetr_cli.data.collection import Box, Collection, LabelledImage, collect
from rtdetr_cli.data.dataset import DetectionDataset, LabelledBox, make_record


@pytest.fixture
def cleaned(scene):
    """Returns the names that are left of `{split: {name: seed}}`, and the changes."""

    def clean(content):
        splits, signatures = {}, {}
        for split, images in content.items():
            boxes = [LabelledBox(0, [10, 10, 50, 50])]
            records = [
                make_record(number, Path(split, name), (120, 160), boxes)
                for number, name in enumerate(images, start=1)
            ]
            signatures |= {
                Path(split, name): image_signature(
                    (scene(int(seed)) * (seed % 1 or 1)).astype("u1")
                )
                for name, seed in images.items()
            }
            splits[split] = DetectionDataset({0: "cat"}, [0], records)
        kept, changes = without_repeats(splits, signatures)
        names = {split: [one.path.name for one in of.records] for split, of in kept.items()}
        return names, [tuple(change) for change in changes]

    return clean


def test_copies_are_left_out_and_of_leaks_the_earlier_split(cleaned):
    names, changes = cleaned(
        {
            "train": {"a": 0, "b": 1, "c": 0, "d": 2, "e": 2.9, "f": 3, "g": 3.9},
            "val": {"h": 1, "i": 4, "j": 5.9},
            "test": {"k": 2.9, "l": 5},
        }
    )
    assert names == {"train": ["a", "f", "g"], "val": ["h", "i"], "test": ["k", "l"]}
    assert sorted(changes) == [
        ("train/b", "image left out, identical to val/h of val"),
        ("train/c", "image left out, identical to train/a"),
        ("train/d", "image left out, looks like test/k of test"),
        ("train/e", "image left out, identical to test/k of test"),
        ("val/j", "image left out, looks like test/l of test"),
    ]


def test_a_leak_behind_a_leak_is_found(cleaned):
    """The copy in train of an image of val hides that it looks like one of test."""
    names, _ = cleaned({"train": {"a": 0, "b": 1}, "val": {"c": 0, "d": 2}, "test": {"e": 0.9}})
    assert names == {"train": ["b"], "val": ["d"], "test": ["e"]}


def test_nothing_left_is_an_error(cleaned):
    with pytest.raises(DataError, match="train: each of its images is in a later split as well"):
        cleaned({"train": {"a": 0}, "val": {"b": 0, "c": 1}})


def collection(*boxes, crowd=False):
    made = tuple(Box(label, xywh, 1.0, crowd, n) for n, (label, xywh) in enumerate(boxes, 1))
    image = LabelledImage(Path("a.jpg"), (100, 100), 1, made)
    return Collection(("cat", "dog"), None, {"train": [image]})


@pytest.mark.parametrize(
    ("boxes", "kept"),
    [
        ([(0, (0, 0, 40, 40)), (0, (0, 0, 40, 41))], [1]),  # IoU 0.976
        ([(0, (0, 0, 40, 40)), (0, (0, 0, 40, 44))], [1, 2]),  # IoU 0.909
        ([(0, (0, 0, 40, 40)), (1, (0, 0, 40, 40))], [1, 2]),
        ([(0, (0, 0, 40, 40)), (0, (5, 5, 0, 9)), (0, (0, 0, 40, 40))], [1]),
        ([(0, (5, 5, 0, 9)), (0, (5, 5, 9, 0))], []),
        ([], []),
    ],
)
def test_boxes_without_area_and_drawn_twice_are_left_out(boxes, kept):
    found, changes = without_doubtful_boxes(collection(*boxes))
    assert [box.number for box in found.splits["train"][0].boxes] == kept
    assert len(changes) == len(boxes) - len(kept)


def test_a_change_of_a_box_says_where_and_why():
    boxes = [(0, (0, 0, 40, 40)), (0, (0.5, 0, 40, 40)), (0, (1, 2, 0, 4))]
    _, changes = without_doubtful_boxes(collection(*boxes))
    assert [tuple(change) for change in changes] == [
        (
            "a.jpg",
            "box left out: cat at 0.5, 0, 40, 40 (x, y, w, h) has IoU 0.975 with another one",
        ),
        ("a.jpg", "box left out: cat at 1, 2, 0, 4 (x, y, w, h) has no area"),
    ]


def test_crowds_are_not_compared():
    boxes = [(0, (0, 0, 40, 40)), (0, (0, 0, 40, 40))]
    found, _ = without_doubtful_boxes(collection(*boxes, crowd=True))
    assert len(found.splits["train"][0].boxes) == 2


def test_entries_of_one_file_are_joined():
    def record(number, name, left):
        boxes = [LabelledBox(0, [left, 0, left + 10, 10]), LabelledBox(0, [50, 50, 60, 60])]
        return make_record(number, Path(name), (100, 100), boxes)

    records = [record(1, "a", 0), record(2, "b", 0), record(3, "a", 20)]
    dataset = DetectionDataset({0: "cat"}, [0], records)
    found, changes = with_joined_entries(collect([("train", dataset)]))
    lefts = {
        image.path.name: sorted(box.xywh[0] for box in image.boxes)
        for image in found.splits["train"]
    }
    assert lefts == {"a": [0, 20, 50], "b": [0, 50]}
    assert [tuple(one) for one in changes] == [("a", "entries of train for this file joined")]

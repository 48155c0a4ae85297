from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtdetr_cli.core.findings import Severity
from rtdetr_cli.data.checks.duplicates import check_duplicates
from rtdetr_cli.data.checks.similar import image_signature
from rtdetr_cli.data.dataset import DetectionDataset, LabelledBox, make_record

BOX = [10, 20, 60, 70]


@pytest.fixture
def make(scene):
    """Makes splits and signatures of `{split: {name: (seed of the scene, boxes)}}`."""

    def draw(name, seed):
        pixels = scene(seed)[:, :: -1 if "mirrored" in name else 1]
        return (pixels * (0.9 if "darker" in name else 1)).astype(np.uint8)

    def build(content):
        splits, signatures = {}, {}
        for split, images in content.items():
            records = []
            for number, (name, (seed, boxes)) in enumerate(images.items(), start=1):
                labelled = [LabelledBox(label, corners) for label, corners in boxes]
                records.append(make_record(number, Path(split, name), (120, 160), labelled))
                signatures[Path(split, name)] = image_signature(draw(name, seed))
            splits[split] = DetectionDataset({0: "cat", 1: "dog"}, [0, 1], records)
        return splits, signatures

    return build


def found(splits, signatures):
    return {
        (one.id, *one.splits): [example.where for example in one.examples]
        for one in check_duplicates(splits, signatures)
    }


def test_images_that_repeat_another_are_found_within_and_between_splits(make):
    boxes = [(0, BOX)]
    splits, signatures = make(
        {
            "train": {n: (s, boxes) for n, s in {"a": 0, "b": 1, "c": 0, "d": 2, "e": 5}.items()},
            "val": {n: (s, boxes) for n, s in {"f": 3, "g darker": 1, "h": 2, "i": 2}.items()},
            "test": {n: (s, boxes) for n, s in {"j darker": 3, "k": 4, "l darker": 4}.items()},
        }
    )
    assert found(splits, signatures) == {
        ("image-leaked", "train", "val"): ["val/h", "val/i"],
        ("image-leaked-nearly", "train", "val"): ["val/g darker"],
        ("image-leaked-nearly", "val", "test"): ["test/j darker"],
        ("image-identical", "train"): ["train/c"],
        ("image-identical", "val"): ["val/i"],
        ("image-near-identical", "test"): ["test/l darker"],
    }
    one = {one.id: one for one in check_duplicates(splits, signatures)}["image-leaked"]
    assert (one.count, one.severity) == (2, Severity.WARNING)
    assert one.examples[0].what == "copy of train/d"
    assert one.examples[0].images == (Path("val/h"), Path("train/d"))


def test_an_image_without_a_signature_is_left_out(make):
    splits, signatures = make({"train": {"a": (0, []), "b": (0, [])}})
    del signatures[Path("train/a")]
    assert found(splits, signatures) == {}
    assert found(splits, {}) == {}


def test_a_file_that_two_splits_list_is_not_a_copy(make):
    """It is reported as image-in-two-splits, by splits.py."""
    splits, signatures = make({"train": {"a": (0, []), "b": (1, []), "c": (1, [])}})
    splits["val"] = splits["train"]
    assert found(splits, signatures) == {("image-identical", "train"): ["train/c"]}
    splits["val"] = replace(splits["train"], records=splits["train"].records[1:])
    assert found(splits, signatures) == {
        ("image-identical", "train"): ["train/c"],
        ("image-identical", "val"): ["train/c"],
        ("image-leaked", "train", "val"): ["train/c"],  # of b
    }


@pytest.mark.parametrize(
    ("boxes", "marked"),
    [
        ([(0, BOX)], None),
        ([(0, [12, 22, 62, 72])], None),  # IoU 0.85: drawn by another person
        ([(1, BOX)], [("dog", BOX), ("cat of the other", BOX)]),
        ([], [("cat of the other", BOX)]),
        ([(0, BOX), (0, [100, 20, 140, 40])], [("cat", [100, 20, 140, 40])]),
        ([(0, BOX), (0, BOX)], [("cat", BOX)]),  # each counts once
        ([(0, [40, 50, 90, 100])], [("cat", [40, 50, 90, 100]), ("cat of the other", BOX)]),
    ],
)
def test_labels_of_one_image_that_differ_are_a_conflict(make, boxes, marked):
    splits, signatures = make({"train": {"a": (0, [(0, BOX)])}, "val": {"b": (0, boxes)}})
    conflicts = [o for o in check_duplicates(splits, signatures) if o.id == "label-conflict"]
    drawn = [
        [(box.caption, pytest.approx(box.corners)) for box in one.examples[0].boxes]
        for one in conflicts
    ]
    assert drawn == ([] if marked is None else [[(text, tuple(box)) for text, box in marked]])


def test_labels_of_a_mirror_image_are_mirrored(make):
    mirrored = [100, 20, 150, 70]  # BOX in an image 160 pixels wide
    splits, signatures = make({"train": {"a": (0, [(0, BOX)]), "b mirrored": (0, [(0, mirrored)])}})
    assert found(splits, signatures) == {("image-near-identical", "train"): ["train/b mirrored"]}
    splits, signatures = make({"train": {"a": (0, [(0, BOX)]), "b mirrored": (0, [(0, BOX)])}})
    assert ("label-conflict", "train") in found(splits, signatures)

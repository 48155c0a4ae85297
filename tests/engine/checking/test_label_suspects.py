"""Suspected label errors as places and findings: names, files, boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtdetr_cli.core.findings import MAX_EXAMPLES, Example, Finding, Severity
from rtdetr_cli.data.dataset import DetectionDataset, LabelledBox, make_record
from rtdetr_cli.engine.checking.label_suspects import (
    Suspect,
    as_findings,
    find_suspects,
    usable,
)
from rtdetr_cli.evaluation.label_errors import Kind
from rtdetr_cli.evaluation.matching import Found

MODEL_NAMES = {0: "dog", 1: "cat", 2: "bird"}
"""The data set has cat as 0 and dog as 1."""


@pytest.fixture
def dataset() -> DetectionDataset:
    """Ten images with a cat at 0, a dog at 100 and a dog at 200; in image 4 the last is a cat."""
    records = []
    for image in range(1, 11):
        labels = (0, 1, 0 if image == 4 else 1)
        boxes = [
            LabelledBox(label, [100.0 * slot, 0, 100.0 * slot + 50, 50], place=slot + 1)
            for slot, label in enumerate(labels)
        ]
        path = Path(f"images/{image}.jpg")
        records.append(make_record(image, path, (100, 400), boxes, f"labels/{image}.txt:"))
    return DetectionDataset({0: "cat", 1: "dog"}, [0, 1], records)


@pytest.fixture
def found() -> Found:
    """What a model finds that is right everywhere, in its own classes, and a bird."""
    rows = [
        (image, label, 100.0 * slot)
        for image in range(1, 11)
        for slot, label in enumerate((1, 0, 0))
    ]
    rows.append((2, 2, 300.0))
    images, classes, x = (np.array(column) for column in zip(*rows, strict=True))
    boxes = np.stack([x, 0 * x, 0 * x + 50, 0 * x + 50], axis=1)
    return Found(images, classes, boxes, np.full(len(x), 0.8))


def test_a_swapped_class_has_its_file_line_and_both_boxes(dataset, found):
    (suspect,), findings = find_suspects("val", dataset, found, MODEL_NAMES)
    assert findings == []
    assert (suspect.kind, suspect.split) == (Kind.SWAP, "val")
    example = suspect.example
    assert example.where == "labels/4.txt:3"
    score = f"{suspect.score:.2f}"
    assert example.what == (
        f"suspicion {score}: label cat at 200,0,250,50, model dog 0.80 at 200,0,250,50"
    )
    assert example.images == (Path("images/4.jpg"),)
    label, detection = example.boxes
    assert label.corners == (200, 0, 250, 50)
    assert (label.is_suspect, detection.is_suspect) == (True, False)


def test_a_place_in_a_json_also_names_the_image(dataset, found):
    records = [
        replace(one, source="a.json: annotations[", path=Path(f"images/cats-{one.image_id}.jpg"))
        for one in dataset.records
    ]
    (suspect,), _ = find_suspects("val", replace(dataset, records=records), found, MODEL_NAMES)
    assert suspect.example.where == "a.json: annotations[3]"
    assert suspect.example.what.startswith(f"suspicion {suspect.score:.2f} in cats-4.jpg: label ")


def test_a_crowd_or_difficult_box_is_not_suspected(dataset, found):
    records = [replace(one, iscrowd=one.labels == 0) for one in dataset.records]
    suspects, _ = find_suspects("val", replace(dataset, records=records), found, MODEL_NAMES)
    assert suspects == []


def test_a_missing_label_is_placed_by_its_image(dataset, found):
    first = dataset.records[0]
    shorter = replace(
        first,
        boxes_xyxy=first.boxes_xyxy[:2],
        labels=first.labels[:2],
        iscrowd=first.iscrowd[:2],
        places=first.places[:2],
    )
    dataset = replace(dataset, records=[shorter, *dataset.records[1:]])
    found.scores[2] = 0.9  # the one without a label
    suspects, _ = find_suspects("val", dataset, found, MODEL_NAMES)
    by_kind = {one.kind: one.example for one in suspects}
    assert by_kind[Kind.MISSING].where == "images/1.jpg"
    assert [box.is_suspect for box in by_kind[Kind.MISSING].boxes] == [True]
    assert by_kind[Kind.SWAP].where == "labels/4.txt:3"


def test_labels_of_a_class_that_the_model_does_not_know_are_not_judged(dataset, found):
    dataset = replace(dataset, names={0: "kitten", 1: "dog"})
    suspects, (finding,) = find_suspects("val", dataset, found, MODEL_NAMES)
    assert suspects == []
    assert (finding.id, finding.splits, finding.count) == ("model-names-differ", ("val",), 1)
    assert finding.examples[0].where == "kitten"


def test_as_many_classes_of_other_names_are_compared_by_number(dataset, found):
    names = {0: "dog", 1: "cat"}
    dataset = replace(dataset, names={0: "hound", 1: "cat"})
    suspects, (other, few) = find_suspects("val", dataset, found, names)
    assert "'dog' in the model" in other.examples[0].what
    # Cat and dog are numbered the other way round in these labels, but for the one in image 4.
    assert (few.id, suspects) == ("model-finds-few", [])
    assert few.examples[0].what == "the model agrees with 3% of the labels"


def test_a_finding_per_kind_keeps_the_most_suspicious():
    suspects = [
        Suspect(kind, 1 - number / 100, split, Example(f"{number}"))
        for number in range(30)
        for kind, split in ((Kind.SWAP, "val"), (Kind.MISSING, "test"))
    ]
    missing, swap = as_findings(suspects)
    assert (missing.id, swap.id) == ("suspected-missing-label", "suspected-class-swap")
    assert (swap.count, swap.splits, swap.severity) == (30, ("val",), Severity.WARNING)
    assert [one.where for one in swap.examples] == [str(number) for number in range(MAX_EXAMPLES)]


def test_images_with_an_error_are_not_searched(dataset):
    bad = Example("images/3.jpg", "truncated", (Path("images/3.jpg"),))
    error = Finding("image-damaged", Severity.ERROR, ("val", "test"), "", 1, (bad,), "")
    assert len(usable(dataset, "val", [error]).records) == 9
    assert len(usable(dataset, "train", [error]).records) == 10
    assert len(usable(dataset, "val", [replace(error, severity=Severity.NOTE)]).records) == 10

"""Checks between splits; tests/engine/checking/test_planted.py has them on files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rtdetr_cli.core.findings import Finding, Severity
from rtdetr_cli.data.checks.splits import check_splits
from rtdetr_cli.data.dataset import DetectionDataset, LabelledBox, make_record

NAMES = ("cat", "dog", "cow")


def split(counts: list[int], names: tuple[str, ...] = NAMES, folder: str = "a") -> DetectionDataset:
    boxes = [LabelledBox(n, [0, 0, 9, 9]) for n, count in enumerate(counts) for _ in range(count)]
    record = make_record(1, Path(f"/data/{folder}/1.png"), (100, 100), boxes)
    return DetectionDataset(dict(enumerate(names)), list(range(len(names))), [record])


def found(**splits: DetectionDataset) -> dict[str, Finding]:
    return {one.id: one for one in check_splits(splits)}


def test_classes_are_compared_between_splits():
    result = found(train=split([20, 15, 0]), val=split([3, 0, 2], folder="b"))
    assert result.keys() == {"class-not-in-train", "class-not-in-val"}
    assert result["class-not-in-train"].examples[0].where == "cow"
    assert result["class-not-in-train"].examples[0].what == "2 boxes in val, none in train"
    assert result["class-not-in-val"].examples[0].where == "dog"


def test_a_class_of_no_split_is_unused_and_of_the_test_split_alone_not_trained():
    result = found(train=split([20, 15, 0]), test=split([9, 0, 0], folder="b"))
    assert [one.where for one in result["class-unused"].examples] == ["cow"]
    result = found(train=split([20, 15, 0]), test=split([9, 0, 1], folder="b"))
    assert result.keys() == {"class-not-in-train"}
    assert result["class-not-in-train"].splits == ("train", "test")


def test_rare_classes_come_first_by_their_number():
    result = found(train=split([900, 9, 2]))
    assert [(one.where, one.what) for one in result["class-rare"].examples] == [
        ("cow", "2 boxes"),
        ("dog", "9 boxes"),
    ]
    assert [one.what for one in result["class-imbalance"].examples] == [
        "2 boxes, cat has 900",
        "9 boxes, cat has 900",
    ]


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (("cat", "Cat", "cow"), ["Cat"]),
        (("traffic light", "traffic-light", "Traffic_Light"), ["traffic-light, Traffic_Light"]),
        (("cat ", "cat", "cow"), ["cat"]),
        (("cat", "cat", "cow"), ["cat"]),
        (("a", "A", "b"), []),
        (("c", "c++", "c#"), []),
        (("cat", "cats", "dog"), []),
    ],
)
def test_names_that_differ_in_case_or_blanks_are_alike(names, alike):
    result = found(train=split([20, 20, 20], names))
    assert result.keys() == ({"class-names-similar"} if alike else set())
    examples = [example for one in result.values() for example in one.examples]
    assert [example.what for example in examples] == [f"also {one}" for one in alike]


def test_classes_that_only_some_jsons_list_are_named():
    train, val = split([20, 20, 20]), split([9, 9, 9], folder="b")
    assert found(train=train, val=val) == {}
    train = replace(train, listed=frozenset(NAMES))
    assert found(train=train, val=val) == {}  # val is in another format
    one = found(train=train, val=replace(val, listed=frozenset({"cat", "cow"})))["names-differ"]
    assert (one.severity, one.splits) == (Severity.NOTE, ("train", "val"))
    assert [(example.where, example.what) for example in one.examples] == [("dog", "only in train")]


def test_a_split_without_boxes_is_an_error_only_for_training():
    result = check_splits({"train": split([0, 0, 0]), "val": split([0, 0, 0], folder="b")})
    found = [(one.splits, one.severity) for one in result if one.id == "boxes-missing"]
    assert found == [(("train",), Severity.ERROR), (("val",), Severity.WARNING)]


def test_a_file_of_two_splits_is_found_whatever_its_path_looks_like():
    other = split([20, 20, 20], folder="b/../a")
    result = found(train=split([20, 20, 20]), test=other)
    assert result["image-in-two-splits"].splits == ("train", "test")
    assert result["image-in-two-splits"].count == 1

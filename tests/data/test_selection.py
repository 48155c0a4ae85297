"""Parts of a data set: records and ground truth stay of one mind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.data.dataset import DetectionDataset, LabelledBox, make_record
from rtdetr_cli.data.selection import (
    concatenate,
    keep_classes,
    match_classes,
    merge_classes,
    take_fraction,
    unknown_classes,
)


@pytest.fixture
def split() -> DetectionDataset:
    """Ten images with a cat (COCO id 17) and a dog (18) each, as of a COCO json."""
    boxes = [LabelledBox(0, [0, 0, 9, 9]), LabelledBox(1, [1, 1, 8, 8])]
    records = [make_record(number, Path(f"{number}.png"), (10, 10), boxes) for number in range(10)]
    annotations = [
        {"id": 2 * number + label, "image_id": number, "category_id": 17 + label}
        for number in range(10)
        for label in (0, 1)
    ]
    return DetectionDataset({0: "cat", 1: "dog"}, [17, 18], records, [], annotations)


def test_classes_keep_their_numbers_and_the_images_stay(split):
    assert split.num_boxes == 20
    dogs = keep_classes(split, (1,))
    assert (len(dogs), dogs.num_boxes, dogs.names) == (10, 10, split.names)
    assert all(record.labels.tolist() == [1] for record in dogs.records)
    assert all(record.boxes_xyxy.tolist() == [[1, 1, 8, 8]] for record in dogs.records)
    assert {box["category_id"] for box in dogs.ground_truth()["annotations"]} == {18}


def test_a_class_that_does_not_exist_is_named(split):
    with pytest.raises(UsageError, match=r"classes: 7 is neither a class of the data set.* 0 to 1"):
        keep_classes(split, (0, 7))


def test_classes_may_be_given_by_name(split):
    kept, by_index = keep_classes(split, ("dog",)), keep_classes(split, (1,))
    assert [record.labels.tolist() for record in kept.records] == [[1]] * 10
    assert kept.annotations == by_index.annotations


def test_all_classes_become_one(split):
    merged = merge_classes(split)
    assert (merged.names, merged.category_ids, merged.num_boxes) == ({0: "object"}, [17], 20)
    assert all((record.labels == 0).all() for record in merged.records)
    truth = merged.ground_truth()
    assert truth["categories"] == [{"id": 17, "name": "object"}]
    assert {box["category_id"] for box in truth["annotations"]} == {17}
    assert {box["category_id"] for box in split.annotations} == {17, 18}  # untouched


def test_a_fraction_follows_the_seed_and_takes_its_annotations_along(split):
    first, again, other = (take_fraction(split, 0.5, seed) for seed in (0, 0, 1))
    ids = [[record.image_id for record in part.records] for part in (first, again, other)]
    assert ids[0] == ids[1] == sorted(ids[0])
    assert ids[0] != ids[2]
    assert len(ids[0]) == 5
    assert {box["image_id"] for box in first.annotations} == set(ids[0])
    assert len(take_fraction(split, 0.001, 0)) == 1
    assert np.array_equal(take_fraction(split, 1.0, 0).records, split.records)


def test_classes_get_the_numbers_of_a_model_by_name(split):
    """The ground truth keeps its ids; a class that only the model knows gets an unused one."""
    matched = match_classes(split, {0: "cow", 1: "dog", 2: "cat"})
    assert matched.names == {0: "cow", 1: "dog", 2: "cat"}
    assert matched.category_ids == [19, 18, 17]
    assert matched.records[0].labels.tolist() == [2, 1]
    assert matched.annotations == split.annotations


@pytest.mark.parametrize("names", [("cat", "dog"), ("cat", "hound"), ("0", "1"), ("cat", "cat")])
def test_equal_names_and_others_at_their_place_are_left_alone(split, names):
    assert match_classes(split, dict(enumerate(names))) is split


@pytest.mark.parametrize("names", [("cow", "hound", "hen"), ("hound",)])
def test_a_model_that_knows_no_class_is_an_error(split, names):
    with pytest.raises(UsageError, match=r"the data set 2 \(cat, dog\); cat is not among those"):
        match_classes(split, dict(enumerate(names)))


def test_a_name_that_two_classes_have_cannot_be_matched(split):
    with pytest.raises(UsageError, match="knows 3 classes"):
        match_classes(split, {0: "cat", 1: "cat", 2: "dog"})


@pytest.mark.parametrize("names", [("dog", "hound"), ("hound", "cow", "dog")])
def test_boxes_of_a_class_that_the_model_does_not_know_are_left_out(split, names):
    names = dict(enumerate(names))
    assert unknown_classes(split, names) == ["cat"]
    matched = match_classes(split, names)
    dog = list(names.values()).index("dog")
    assert (matched.names, matched.category_ids[dog]) == (names, 18)
    assert len(set(matched.category_ids)) == len(names)
    assert all(record.labels.tolist() == [dog] for record in matched.records)
    assert all(record.boxes_xyxy.tolist() == [[1, 1, 8, 8]] for record in matched.records)
    truth = matched.ground_truth()
    assert {box["category_id"] for box in truth["annotations"]} == {18}
    assert [one["name"] for one in truth["categories"]] == list(names.values())
    assert split.num_boxes == 20  # untouched


def test_the_id_of_a_class_that_is_left_out_is_given_to_no_other(split):
    """`rtdetr compare` keeps its boxes, and would take detections of hound for dogs."""
    matched = match_classes(split, {0: "cat", 1: "hound", 2: "cow"})
    assert matched.category_ids == [17, 19, 20]


@pytest.mark.parametrize("names", [("cat", "dog"), ("cat", "hound"), ("dog", "cow", "cat")])
def test_no_class_is_unknown_if_all_are_matched(split, names):
    assert unknown_classes(split, dict(enumerate(names))) == []


def test_parts_with_other_ids_become_one_split(split):
    other = match_classes(split, {0: "cat", 1: "dog"})
    other.category_ids[:] = [18, 17]
    both = concatenate([split, other])
    assert [record.image_id for record in both.records] == list(range(1, 21))
    assert [box["category_id"] for box in both.annotations[18:22]] == [17, 18, 17, 18]
    assert [box["id"] for box in both.annotations] == list(range(1, 41))

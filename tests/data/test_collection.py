from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from rtdetr_cli.core.errors import DataError, UsageError
from rtdetr_cli.data.collection import collect, group_by, keep_classes, resplit
from rtdetr_cli.data.dataset import DetectionDataset, LabelledBox, make_record


def dataset(names, images, ids=None):
    """A split: image path to class indices, each with a box of 10x10 pixels."""
    records = [
        make_record(number, Path(path), (40, 60), [LabelledBox(at, [0, 0, 10, 10]) for at in found])
        for number, (path, found) in enumerate(images.items(), start=1)
    ]
    made = DetectionDataset(dict(enumerate(names)), ids or list(range(len(names))), records)
    if ids is None:
        return made
    boxes = made.ground_truth()["annotations"]
    return DetectionDataset(made.names, ids, records, annotations=boxes)


def labels(collection, split="train"):
    return [
        [collection.names[box.label] for box in image.boxes] for image in collection.splits[split]
    ]


def test_classes_of_several_data_sets_are_matched_by_name():
    first = dataset(["cat", "dog"], {"a": [0, 1]})
    second = dataset(["dog", "emu"], {"b": [0, 1]})
    found = collect([("train", first), ("train", second), ("val", second)])
    assert found.names == ("cat", "dog", "emu")
    assert labels(found) == [["cat", "dog"], ["dog", "emu"]]
    assert labels(found, "val") == [["dog", "emu"]]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["cat", "cat"], "two classes are named cat"),
        (["cat", " cat\n"], "two classes are named cat"),  # VOC does not keep the blanks
        (["cat", " "], "class 1 has no name"),
    ],
)
def test_classes_without_a_name_of_their_own_are_an_error(names, sentence):
    with pytest.raises(DataError, match=sentence):
        collect([("train", dataset(names, {"a": [0, 1]}))])


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([3, 7], [3, 7], (3, 7)),
        ([3, 7], [7, 3], (3, 7)),  # the first json wins; classes are matched by name
        ([3, 7], None, (3, 7)),  # YOLO has no ids of its own
        (None, [3, 7], (3, 7)),
        (None, None, None),
    ],
)
def test_category_ids_are_those_of_the_first_json(first, second, expected):
    parts = [
        (split, dataset(["cat", "dog"], {"a": [0]}, ids))
        for split, ids in (("train", first), ("val", second))
    ]
    assert collect(parts).category_ids == expected


def test_a_class_without_a_free_id_gets_an_unused_one():
    first, second = dataset(["cat"], {"a": [0]}, [3]), dataset(["emu", "dog"], {"b": [0]}, [3, 2])
    yolo = dataset(["fox"], {"c": [0]})
    found = collect([("train", first), ("train", second), ("train", yolo)])
    assert found.names == ("cat", "emu", "dog", "fox")
    assert found.category_ids == (3, 4, 2, 5)


@pytest.mark.parametrize("wanted", [(2, 0), ("emu", "cat"), (2, "cat")])
def test_kept_classes_are_numbered_in_the_given_order(wanted):
    collection = collect([("train", dataset(["cat", "dog", "emu"], {"a": [0, 1, 2], "b": [1]}))])
    found = keep_classes(collection, wanted)
    assert found.names == ("emu", "cat")
    assert [box.label for box in found.splits["train"][0].boxes] == [1, 0]
    assert labels(found) == [["cat", "emu"], []]  # an image without boxes stays


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ((2,), "classes: 2 is neither a class of the data set (cat, dog) nor an index from 0 to 1"),
        (("cats",), "did you mean cat?"),
        ((0, "cat"), "classes: cat is named twice"),
    ],
)
def test_wrong_classes_are_named(wanted, sentence):
    collection = collect([("train", dataset(["cat", "dog"], {"a": [0]}))])
    with pytest.raises(UsageError, match=re.escape(sentence)):
        keep_classes(collection, wanted)


def test_a_class_whose_name_is_a_number_is_meant_by_its_name():
    collection = collect([("train", dataset(["1", "0"], {"a": [0, 1]}))])
    assert keep_classes(collection, [0]).names == ("0",)


def twenty(folder="x"):
    return dataset(["cat"], {f"{folder}/{n:02}.jpg": [0] for n in range(20)})


def split_names(collection, *, seed=0, group=None, fractions=(0.8, 0.1, 0.1)):
    found = resplit(collection, fractions, seed, group_by(group))
    return {split: [image.path.name for image in of] for split, of in found.splits.items()}


def test_a_split_has_its_fractions_and_depends_on_the_seed_alone():
    collection = collect([("train", twenty())])
    found = split_names(collection)
    assert [len(found[split]) for split in ("train", "val", "test")] == [16, 2, 2]
    assert sorted(name for names in found.values() for name in names) == [
        f"{n:02}.jpg" for n in range(20)
    ]
    assert found == split_names(collection)
    assert found != split_names(collection, seed=1)
    assert split_names(collection, fractions=(0.5, 0.5)).keys() == {"train", "val"}


@pytest.mark.parametrize("group", ["folder", r"^(\w)_"])
def test_a_group_is_in_one_split(group):
    images = {f"{letter}/{letter}_{n}.jpg": [0] for letter in "abcde" for n in range(4)}
    found = split_names(collect([("train", dataset(["cat"], images))]), group=group)
    homes = {name[0]: split for split, names in found.items() for name in names}
    assert len(homes) == 5
    assert sum(map(len, found.values())) == 20
    for split, names in found.items():
        assert {homes[name[0]] for name in names} == {split}


def test_groups_of_unequal_size_come_near_the_fractions():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 30, 40)
    images = {f"{at}/{n}.jpg": [0] for at, size in enumerate(sizes) for n in range(size)}
    found = split_names(collect([("train", dataset(["cat"], images))]), group="folder")
    # The largest group goes first, so no split misses by more than the smallest groups.
    assert len(found["train"]) / sizes.sum() == pytest.approx(0.8, abs=0.01)
    assert len(found["val"]) / sizes.sum() == pytest.approx(0.1, abs=0.01)


def test_a_group_that_does_not_match_is_an_error():
    with pytest.raises(DataError, match=r"group=\(z\) does not match the file name of x/00\.jpg"):
        split_names(collect([("train", twenty())]), group="(z)")


def test_an_image_of_several_splits_is_taken_once():
    found = resplit(
        collect([("train", twenty()), ("val", twenty())]), (0.5, 0.5), 0, group_by(None)
    )
    assert [len(images) for images in found.splits.values()] == [10, 10]
    assert found.notes == ("images in several splits, taken once: 20",)


def test_fewer_groups_than_splits_are_an_error():
    with pytest.raises(DataError, match="train, val, test need a group each, but 20 images form 1"):
        split_names(collect([("train", twenty())]), group="folder")

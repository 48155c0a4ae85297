"""Data sets on their way to files: joined by class name, reduced to classes, split again.

Boxes keep the exact numbers of their source, and crowds and boxes without area stay; the records
of dataset.py are float32 and for training. write.py writes a Collection.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from rtdetr_cli.config.dataset import SPLITS
from rtdetr_cli.core.class_names import class_indices
from rtdetr_cli.core.errors import DataError, UsageError
from rtdetr_cli.data.dataset import DetectionDataset

T = TypeVar("T")


class Box(NamedTuple):
    """One box: class index, (left, top, width, height) and area in pixels, crowd or difficult.

    `number` is the id of the annotation in a COCO json.
    """

    label: int
    xywh: tuple[float, ...]
    area: float
    crowd: bool = False
    number: int | None = None


@dataclass(frozen=True)
class LabelledImage:
    """One image: file, upright size in pixels, id in a COCO json, boxes."""

    path: Path
    size_hw: tuple[int, int]
    image_id: int | None
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Collection:
    """One or more data sets that share their classes.

    Attributes:
        names: name of each class index.
        category_ids: id of each class in a COCO json; None: no source is one.
        splits: images by split; none is empty.
        notes: sentences about what was left out, for the user.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...] | None
    splits: dict[str, list[LabelledImage]]
    notes: tuple[str, ...] = ()


def collect(parts: Sequence[tuple[str, DetectionDataset]]) -> Collection:
    """Join splits of one or more data sets; classes are the same if their names are.

    Args:
        parts: name of the split (several may have the same) and its content.

    Raises:
        DataError: a data set has two classes of one name, or one without a name.
    """
    parts = [(split, _with_plain_names(dataset)) for split, dataset in parts]
    names = tuple(dict.fromkeys(name for _, dataset in parts for name in dataset.names.values()))
    splits: dict[str, list[LabelledImage]] = {}
    for split, dataset in parts:
        splits.setdefault(split, []).extend(_labelled_images(dataset, names))
    return Collection(names, _category_ids(parts, names), splits)


def _with_plain_names(dataset: DetectionDataset) -> DetectionDataset:
    """Strip blanks around names, which VOC does not keep."""
    names = {index: name.strip() for index, name in dataset.names.items()}
    for index, name in names.items():
        if not name:
            raise DataError(f"class {index} has no name; classes are matched by name")
    if twice := _repeated(names.values()):
        raise DataError(f"two classes are named {twice[0]}; classes are matched by name")
    return replace(dataset, names=names)


def _repeated(items: Iterable[T]) -> list[T]:
    return [item for item, number in Counter(items).items() if number > 1]


def _labelled_images(dataset: DetectionDataset, names: tuple[str, ...]) -> list[LabelledImage]:
    has_ids = dataset.annotations is not None
    index_of = {name: index for index, name in enumerate(names)}
    class_of = {
        category_id: index_of[dataset.names[index]]
        for index, category_id in enumerate(dataset.category_ids)
    }
    boxes_of = defaultdict(list)
    for entry in dataset.ground_truth()["annotations"]:
        if entry["category_id"] not in class_of:  # of a class that `names` leaves out
            continue
        box = Box(
            label=class_of[entry["category_id"]],
            xywh=tuple(entry["bbox"]),
            area=entry["area"],
            crowd=bool(entry["iscrowd"]),
            number=int(entry["id"]) if has_ids else None,
        )
        boxes_of[entry["image_id"]].append(box)
    return [
        LabelledImage(
            record.path,
            record.size_hw,
            record.image_id if has_ids else None,
            tuple(boxes_of[record.image_id]),
        )
        for record in dataset.records
    ]


def _category_ids(
    parts: Sequence[tuple[str, DetectionDataset]], names: tuple[str, ...]
) -> tuple[int, ...] | None:
    """Ids of the classes: of the first COCO json that has the class, else unused ones."""
    name_of: dict[int, str] = {}
    for _, dataset in parts:
        for index, category_id in enumerate(dataset.category_ids):
            if dataset.annotations is not None:
                name_of.setdefault(category_id, dataset.names[index])
    if not name_of:
        return None
    id_of = {name: category_id for category_id, name in reversed(name_of.items())}
    unused = count(max(name_of) + 1)
    return tuple(id_of[name] if name in id_of else next(unused) for name in names)


def keep_classes(collection: Collection, wanted: Sequence[int | str]) -> Collection:
    """Keep some classes, numbered in the given order; all images are kept.

    Args:
        collection: the data.
        wanted: names, or indices of names.

    Raises:
        UsageError: a class is unknown or named twice.
    """
    indices = class_indices(wanted, dict(enumerate(collection.names)), "data set")
    if twice := _repeated(indices):
        raise UsageError(f"classes: {collection.names[twice[0]]} is named twice")
    label_of = {index: label for label, index in enumerate(indices)}

    def reduce(image: LabelledImage) -> LabelledImage:
        kept = (box for box in image.boxes if box.label in label_of)
        return replace(image, boxes=tuple(box._replace(label=label_of[box.label]) for box in kept))

    ids = collection.category_ids
    return replace(
        collection,
        names=tuple(collection.names[index] for index in indices),
        category_ids=ids and tuple(ids[index] for index in indices),
        splits={split: list(map(reduce, images)) for split, images in collection.splits.items()},
    )


def group_by(group: str | None) -> Callable[[Path], str]:
    """Return the function that names the group of an image file.

    Args:
        group: `folder`, or a regular expression whose first group in the file name is the name;
            None: each file is its own group.

    Raises:
        DataError: (the function) the expression does not match.
    """
    if group == "folder":
        return lambda path: str(path.parent)
    if group is None:
        return str
    pattern = re.compile(group)

    def first_group(path: Path) -> str:
        match = pattern.search(path.name)
        if match is None or match[1] is None:
            raise DataError(f"group={group} does not match the file name of {path}")
        return match[1]

    return first_group


def resplit(
    collection: Collection,
    fractions: Sequence[float],
    seed: int,
    group_of: Callable[[Path], str],
) -> Collection:
    """Distribute all images to train, val and test; a group is never divided.

    An image that several splits list with the same boxes is taken once.

    Raises:
        DataError: there are fewer groups than splits.
    """
    pool = [image for images in collection.splits.values() for image in images]
    images = _distinct(pool)
    groups = defaultdict(list)
    for position, image in enumerate(images):
        groups[group_of(image.path)].append(position)
    target = {
        split: part * len(images) for split, part in zip(SPLITS, fractions, strict=False) if part
    }
    if len(groups) < len(target):
        raise DataError(
            f"split: {', '.join(target)} need a group each, but {len(images)} images form "
            f"{len(groups)}"
        )
    members = list(groups.values())
    shuffled = [members[index] for index in np.random.default_rng(seed).permutation(len(members))]
    chosen = _fill(target, sorted(shuffled, key=len, reverse=True))
    repeated = len(pool) - len(images)
    notes = [f"images in several splits, taken once: {repeated}"] if repeated else []
    return replace(
        collection,
        splits={
            split: [images[position] for position in sorted(positions)]
            for split, positions in chosen.items()
        },
        notes=(*collection.notes, *notes),
    )


def _fill(target: dict[str, float], groups: list[list[int]]) -> dict[str, list[int]]:
    """Give each group to the split that lacks most images; the last ones to empty splits."""
    chosen: dict[str, list[int]] = {split: [] for split in target}
    for number, group in enumerate(groups):
        empty = [split for split, found in chosen.items() if not found]
        is_last = len(groups) - number <= len(empty)
        poorest = max(
            empty if is_last else target, key=lambda split: target[split] - len(chosen[split])
        )
        chosen[poorest] += group
    return chosen


def _distinct(images: Iterable[LabelledImage]) -> list[LabelledImage]:
    first: dict[object, LabelledImage] = {}
    for image in images:
        first.setdefault((image.path, content_of(image)), image)
    return list(first.values())


def content_of(image: LabelledImage) -> tuple[tuple[object, ...], ...]:
    """Return what the labels of an image say, without ids; equal if two are the same."""
    return tuple((box.label, box.xywh, box.crowd) for box in image.boxes)

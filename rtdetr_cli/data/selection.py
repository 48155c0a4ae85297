"""Subsets of a data set: some classes, all classes merged, a fraction of the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rtdetr_cli.core.class_names import class_indices
from rtdetr_cli.core.errors import UsageError, nearest
from rtdetr_cli.core.findings import Example
from rtdetr_cli.core.status import counted
from rtdetr_cli.data.dataset import Bools, DetectionDataset, Record
from rtdetr_cli.data.kinds import make_finding, merge

SINGLE_NAME = "object"


def keep_classes(dataset: DetectionDataset, classes: Sequence[int | str]) -> DetectionDataset:
    """Drop the boxes of all other classes; indices, names and images are kept.

    Args:
        dataset: the split.
        classes: names or indices.

    Raises:
        UsageError: one is no class of the data set.
    """
    wanted = class_indices(classes, dataset.names, "data set")
    records = [_filter(record, np.isin(record.labels, wanted)) for record in dataset.records]
    annotations = dataset.annotations
    if annotations is not None:
        kept = {dataset.category_ids[index] for index in wanted}
        annotations = [box for box in annotations if box["category_id"] in kept]
    return replace(dataset, records=records, annotations=annotations)


def merge_classes(dataset: DetectionDataset) -> DetectionDataset:
    """Merge all classes into one."""
    category_id = dataset.category_ids[0]
    records = [replace(one, labels=np.zeros_like(one.labels)) for one in dataset.records]
    annotations = dataset.annotations
    if annotations is not None:
        annotations = [{**box, "category_id": category_id} for box in annotations]
    return replace(
        dataset,
        names={0: SINGLE_NAME},
        category_ids=[category_id],
        records=records,
        annotations=annotations,
    )


def select_classes(
    dataset: DetectionDataset, classes: Sequence[int | str] | None, single_cls: bool
) -> DetectionDataset:
    """Apply the keys `classes` and `single_cls` to a split."""
    if classes is not None:
        dataset = keep_classes(dataset, classes)
    return merge_classes(dataset) if single_cls else dataset


def take_fraction(dataset: DetectionDataset, fraction: float, seed: int) -> DetectionDataset:
    """Sample a fraction of the images with the seed, at least one, in the order of the split."""
    if fraction == 1:
        return dataset
    count = max(1, round(fraction * len(dataset)))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(dataset))[:count])
    return take_images(dataset, chosen.tolist())


def take_images(dataset: DetectionDataset, positions: Sequence[int]) -> DetectionDataset:
    """Select the images at the given positions, with their annotations."""
    records = [dataset.records[position] for position in positions]
    annotations = dataset.annotations
    if annotations is not None:
        kept = {record.image_id for record in records}
        annotations = [box for box in annotations if box["image_id"] in kept]
    return replace(dataset, records=records, annotations=annotations)


def concatenate(parts: Sequence[DetectionDataset]) -> DetectionDataset:
    """One split of several COCO jsons with the same names; ids are numbered again from 1."""
    first = parts[0]
    records: list[Record] = []
    annotations: list[dict[str, Any]] = []
    for part in parts:
        image_ids = {record.image_id: len(records) + n for n, record in enumerate(part.records, 1)}
        ids = dict(zip(part.category_ids, first.category_ids, strict=True))
        records += [replace(one, image_id=image_ids[one.image_id]) for one in part.records]
        for box in part.annotations or ():
            changed = {
                "id": len(annotations) + 1,
                "image_id": image_ids[box["image_id"]],
                "category_id": ids[box["category_id"]],
            }
            annotations.append({**box, **changed})
    note = f"{len(parts)} jsons read as one split, with image ids from 1 to {len(records)}"
    joined = [make_finding("jsons-joined", (), [Example(note)])]
    paths = Counter(path for part in parts for path in {one.path for one in part.records})
    if twice := [path for path, count in paths.items() if count > 1]:
        examples = [Example(str(path), images=(path,)) for path in twice]
        joined.append(make_finding("image-under-several-ids", (), examples))
    return DetectionDataset(
        first.names,
        first.category_ids,
        records,
        [note, *(note for part in parts for note in part.notes)],
        annotations,
        {path: reason for part in parts for path, reason in part.skipped.items()},
        listed=frozenset(name for part in parts for name in part.listed or ()),
        findings=merge([*joined, *(one for part in parts for one in part.findings)]),
    )


def match_classes(dataset: DetectionDataset, model_names: dict[int, str]) -> DetectionDataset:
    """Number the classes of a split as a model does, by their names.

    The split may have fewer classes than the model, in any order. With as many, of which those
    that both have are at the same places, the others are taken to be the same under another name.
    Boxes of classes that the model does not know are dropped; see `unknown_classes`.

    Raises:
        UsageError: the model knows none of the classes, or several of one side have one name.
    """
    if _is_same(dataset.names, model_names):
        return dataset
    index_of = {name: index for index, name in model_names.items()}
    names = list(dataset.names.values())
    unknown = unknown_classes(dataset, model_names)
    has_repeats = len(index_of) < len(model_names) or len(set(names)) < len(names)
    if has_repeats or len(unknown) == len(names):
        shown = unknown or names
        knows = counted(len(model_names), "class", "classes")
        raise UsageError(
            f"the model knows {knows} ({_some(model_names)}) and the data set "
            f"{len(names)} ({_some(dataset.names)}); {shown[0]} is not among those of the "
            f"model{nearest(shown[0], index_of)}"
        )
    unused = max(dataset.category_ids, default=0) + 1  # of no class, of those dropped neither
    if unknown:
        dataset = _drop_classes(
            dataset, [i for i, name in dataset.names.items() if name in unknown]
        )
    new_labels = [index_of[name] for name in dataset.names.values()]
    return _renumber(dataset, model_names, new_labels, unused)


def unknown_classes(dataset: DetectionDataset, model_names: dict[int, str]) -> list[str]:
    """Classes of a split that a model does not know; none if they are the same by their places."""
    known = set(model_names.values())
    if _is_same(dataset.names, model_names):
        return []
    return [name for name in dataset.names.values() if name not in known]


def _is_same(names: dict[int, str], model_names: dict[int, str]) -> bool:
    """Whether each class has the index of the model, if some under another name."""
    if len(names) != len(model_names):
        return False
    known = set(model_names.values())
    has_repeats = len(known) < len(model_names) or len(set(names.values())) < len(names)
    return has_repeats or all(
        model_names[index] == name or name not in known for index, name in names.items()
    )


def _drop_classes(dataset: DetectionDataset, dropped: list[int]) -> DetectionDataset:
    """Drop classes with their boxes; the others are numbered from 0 in the same order."""
    kept = [index for index in dataset.names if index not in dropped]
    dataset = keep_classes(dataset, kept)
    table = np.zeros(len(dataset.names), np.int64)
    table[kept] = np.arange(len(kept))
    return replace(
        dataset,
        names={place: dataset.names[index] for place, index in enumerate(kept)},
        category_ids=[dataset.category_ids[index] for index in kept],
        records=[replace(one, labels=table[one.labels]) for one in dataset.records],
    )


def _renumber(
    dataset: DetectionDataset, names: dict[int, str], new_labels: list[int], unused: int
) -> DetectionDataset:
    """Give class i the index new_labels[i]; other classes get category ids from `unused` on."""
    table = np.array(new_labels, np.int64)
    records = [replace(one, labels=table[one.labels]) for one in dataset.records]
    id_of = dict(zip(new_labels, dataset.category_ids, strict=True))
    for index in range(len(names)):
        if index not in id_of:
            id_of[index] = unused
            unused += 1
    category_ids = [id_of[index] for index in range(len(names))]
    return replace(dataset, names=names, category_ids=category_ids, records=records)


def _some(names: dict[int, str]) -> str:
    shown = ", ".join(list(names.values())[:3])
    return f"{shown}, ..." if len(names) > 3 else shown


def _filter(record: Record, kept: Bools) -> Record:
    return replace(
        record,
        boxes_xyxy=record.boxes_xyxy[kept],
        labels=record.labels[kept],
        iscrowd=record.iscrowd[kept],
        places=record.places[kept],
    )

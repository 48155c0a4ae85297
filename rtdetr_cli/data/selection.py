"""Subsets of a data set: some classes, all classes merged, a fraction of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.data.dataset import Bools, DetectionDataset, Record

SINGLE_NAME = "object"


def keep_classes(dataset: DetectionDataset, classes: tuple[int, ...]) -> DetectionDataset:
    """Drop the boxes of all other classes; indices, names and images are kept.

    Raises:
        UsageError: an index is not a class of the data set.
    """
    unknown = [index for index in classes if index not in dataset.names]
    if unknown:
        names = list(dataset.names.values())
        raise UsageError(
            f"classes: {unknown[0]} is not a class of the data set, whose indices are 0 to "
            f"{len(names) - 1} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        )
    records = [_filter(record, np.isin(record.labels, classes)) for record in dataset.records]
    annotations = dataset.annotations
    if annotations is not None:
        kept = {dataset.category_ids[index] for index in classes}
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
    dataset: DetectionDataset, classes: tuple[int, ...] | None, single_cls: bool
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


def _filter(record: Record, kept: Bools) -> Record:
    return replace(
        record,
        boxes_xyxy=record.boxes_xyxy[kept],
        labels=record.labels[kept],
        iscrowd=record.iscrowd[kept],
    )

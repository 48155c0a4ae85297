"""Find images that repeat another one, within a split and between splits, and compare their labels.

similar.py compares the images; each is decoded once for all checks, by files.py.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_iou

from rtdetr_cli.core.findings import Example, Finding, MarkedBox
from rtdetr_cli.core.status import counted
from rtdetr_cli.data.checks.similar import Signature, similar_pairs
from rtdetr_cli.data.dataset import DetectionDataset, Record
from rtdetr_cli.data.kinds import make_finding

Splits = Mapping[str, DetectionDataset]
Signatures = Mapping[Path, Signature]

_SAME_OBJECT_IOU = 0.5
"""IoU from which boxes of one class are taken to label the same object."""


class Place(NamedTuple):
    """An image of a split, by its position in it."""

    split: str
    position: int


class Repeat(NamedTuple):
    """An image, and one of an earlier split, or an earlier one of its split, that it repeats."""

    first: Place
    second: Place
    identical: bool
    """Whether all pixels are equal; else they look the same."""
    mirrored: bool = False
    """Whether one is the other flipped horizontally."""


def check_duplicates(splits: Splits, signatures: Signatures) -> list[Finding]:
    """Report images that repeat another one, and those whose labels differ from its labels.

    Args:
        splits: opened, train first.
        signatures: of the images that can be decoded.
    """
    found: dict[tuple[str, tuple[str, ...]], dict[Place, Example]] = defaultdict(dict)
    for repeat in find_repeats(splits, signatures):
        first, second = (record_at(splits, place).path for place in repeat[:2])
        if os.path.abspath(first) == os.path.abspath(second):  # noqa: PTH100  (image-in-two-splits)
            continue
        between = tuple(dict.fromkeys(place.split for place in repeat[:2]))
        manner = "copy of" if repeat.identical else "mirrored" if repeat.mirrored else "looks like"
        example = Example(str(second), f"{manner} {first}", (second, first))
        found[_kind(repeat), between].setdefault(repeat.second, example)  # an image counts once
        if conflict := find_conflict(splits, repeat):
            found["label-conflict", between].setdefault(repeat.second, conflict)
    return [
        make_finding(kind, between, [*examples.values()])
        for (kind, between), examples in found.items()
    ]


def repeated_splits(splits: Splits) -> dict[str, str]:
    """Splits with the same images as an earlier one: a COCO json alone is both train and val."""
    first_of: dict[frozenset[str], str] = {}
    repeated = {}
    for split, dataset in splits.items():
        files = frozenset(os.path.abspath(record.path) for record in dataset.records)  # noqa: PTH100
        first = first_of.setdefault(files, split)
        if first != split:
            repeated[split] = first
    return repeated


def find_repeats(splits: Splits, signatures: Signatures) -> list[Repeat]:
    """Find the images that repeat another one.

    Left out are images without a signature, and splits with the same images as an earlier one.

    Args:
        splits: opened, train first.
        signatures: of the images that can be decoded.
    """
    repeated = repeated_splits(splits)
    splits = {split: dataset for split, dataset in splits.items() if split not in repeated}
    first_of: dict[tuple[str, bytes], Place] = {}
    repeats = []
    for place in _places(splits, signatures):
        digest = _of(place, splits, signatures).digest
        for split in splits:  # those that come later have no entries yet
            if first := first_of.get((split, digest)):
                repeats.append(Repeat(first, place, identical=True))
        first_of.setdefault((place.split, digest), place)
    return repeats + _near_identical([*first_of.values()], splits, signatures)


def _near_identical(distinct: list[Place], splits: Splits, signatures: Signatures) -> list[Repeat]:
    """Pairs among images that are distinct in each split."""
    if not distinct:
        return []
    counts = [sum(place.split == split for place in distinct) for split in splits]
    found = [_of(place, splits, signatures) for place in distinct]
    thumbnails = np.stack([signature.thumbnail for signature in found])
    return [
        Repeat(distinct[first], distinct[second], False, mirrored)
        for first, second, mirrored in similar_pairs(thumbnails, [*accumulate(counts)])
        if found[first].digest != found[second].digest
    ]


def _places(splits: Splits, signatures: Signatures) -> list[Place]:
    return [
        Place(split, position)
        for split, dataset in splits.items()
        for position, record in enumerate(dataset.records)
        if record.path in signatures
    ]


def record_at(splits: Splits, place: Place) -> Record:
    """The record of an image."""
    return splits[place.split].records[place.position]


def _of(place: Place, splits: Splits, signatures: Signatures) -> Signature:
    return signatures[record_at(splits, place).path]


def _kind(repeat: Repeat) -> str:
    if repeat.first.split != repeat.second.split:
        return "image-leaked" if repeat.identical else "image-leaked-nearly"
    return "image-identical" if repeat.identical else "image-near-identical"


class _Labels(NamedTuple):
    """The labels of an image: class names, and (N, 4) corners as fractions of the image."""

    names: list[str]
    corners: npt.NDArray[np.float64]


def _labels(splits: Splits, place: Place, mirrored: bool = False) -> _Labels:
    """Labels without crowd regions, flipped horizontally if `mirrored`."""
    record, names = record_at(splits, place), splits[place.split].names
    height, width = record.size_hw
    corners = record.boxes_xyxy[~record.iscrowd] / np.array([width, height, width, height])
    if mirrored:
        corners[:, [0, 2]] = 1 - corners[:, [2, 0]]
    return _Labels([names[label] for label in record.labels[~record.iscrowd].tolist()], corners)


def find_conflict(splits: Splits, repeat: Repeat) -> Example | None:
    """An example if the labels differ; drawn on the second image are those that only one has."""
    first = _labels(splits, repeat.first, repeat.mirrored)
    second = _labels(splits, repeat.second)
    overlap = box_iou(torch.from_numpy(first.corners), torch.from_numpy(second.corners)).numpy()
    overlap *= np.array(first.names)[:, None] == np.array(second.names)
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    is_matched = overlap[rows, columns] >= _SAME_OBJECT_IOU
    missing = np.delete(np.arange(len(first.names)), rows[is_matched]).tolist()
    extra = np.delete(np.arange(len(second.names)), columns[is_matched]).tolist()
    if not missing and not extra:
        return None
    paths = tuple(record_at(splits, place).path for place in (repeat.second, repeat.first))
    height, width = record_at(splits, repeat.second).size_hw
    scale = np.array([width, height, width, height])
    boxes = [
        MarkedBox(tuple((labels.corners[at] * scale).tolist()), f"{labels.names[at]}{ending}")
        for labels, chosen, ending in ((second, extra, ""), (first, missing, " of the other"))
        for at in chosen
    ]
    here, there = (counted(len(one), "box", "boxes") for one in (extra, missing))
    what = f"{here} only here, {there} only in {paths[1]}"
    return Example(str(paths[0]), what, paths, tuple(boxes))

"""Find images that repeat another one, within a split and between splits, and compare their labels.

similar.py compares the images; each is decoded once for all checks, by files.py.
"""

from __future__ import annotations

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

from rtdetr_cli.core.findings import MAX_EXAMPLES, Example, Finding, MarkedBox, Severity
from rtdetr_cli.core.status import counted
from rtdetr_cli.data.checks.similar import Signature, similar_pairs
from rtdetr_cli.data.dataset import DetectionDataset, Record

Splits = Mapping[str, DetectionDataset]
Signatures = Mapping[Path, Signature]

_SAME_OBJECT_IOU = 0.5
"""IoU from which boxes of one class are taken to label the same object."""
_LEAK_ADVICE = "Remove those of the first split; fix=out_dir does it in a copy."
_KINDS = {
    "split-repeated": (
        Severity.NOTE,
        "A split has the same images as another one, so that its scores say nothing of new images.",
        "Name other images, or split them: rtdetr convert split=0.8,0.2.",
    ),
    "image-leaked": (
        Severity.WARNING,
        "Images of one split are in another one too, whose scores are therefore too good.",
        _LEAK_ADVICE,
    ),
    "image-leaked-nearly": (
        Severity.WARNING,
        "Images of one split look like images of another one, whose scores are therefore too good.",
        _LEAK_ADVICE,
    ),
    "image-identical": (
        Severity.WARNING,
        "Images repeat an earlier one of the split, pixel by pixel.",
        "Keep one of each; fix=out_dir does it in a copy.",
    ),
    "image-near-identical": (
        Severity.WARNING,
        "Images look like an earlier one of the split: saved again, resized, or mirrored.",
        "Keep one of each, unless you augmented your data on purpose.",
    ),
    "label-conflict": (
        Severity.WARNING,
        "Images that repeat another one have other labels.",
        "Look at both, and keep the right labels.",
    ),
}
"""Severity, message and advice by id."""


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
    found: dict[tuple[str, tuple[str, ...]], list[Example]] = defaultdict(list)
    for split, other in repeated_splits(splits).items():
        paths = [record.path for record in splits[split].records]
        found["split-repeated", (other, split)] = [Example(str(path)) for path in paths]
    seen = set()
    for repeat in find_repeats(splits, signatures):
        between = tuple(dict.fromkeys(place.split for place in repeat[:2]))
        key = (_kind(repeat), between)
        if (key, repeat.second) not in seen:  # an image counts once
            found[key].append(_example(splits, repeat))
        seen.add((key, repeat.second))
        if conflict := _conflict(splits, repeat):
            found["label-conflict", between].append(conflict)
    return [
        _finding(kind, between, found[kind, between])
        for kind in _KINDS
        for between in sorted(one[1] for one in found if one[0] == kind)
    ]


def _finding(kind: str, between: tuple[str, ...], examples: list[Example]) -> Finding:
    severity, message, advice = _KINDS[kind]
    shown = tuple(examples[:MAX_EXAMPLES])
    return Finding(kind, severity, between, message, len(examples), shown, advice)


def repeated_splits(splits: Splits) -> dict[str, str]:
    """Splits with the same images as an earlier one: a COCO json alone is both train and val."""
    first_of: dict[frozenset[Path], str] = {}
    repeated = {}
    for split, dataset in splits.items():
        first = first_of.setdefault(frozenset(record.path for record in dataset.records), split)
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


def _example(splits: Splits, repeat: Repeat) -> Example:
    first, second = (record_at(splits, place).path for place in repeat[:2])
    manner = "same as" if repeat.identical else "mirrored" if repeat.mirrored else "looks like"
    return Example(str(second), f"{manner} {first}", (second, first))


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


def _conflict(splits: Splits, repeat: Repeat) -> Example | None:
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
    boxes_here = counted(len(extra), "box", "boxes")
    what = f"{boxes_here} without a match in {paths[1]}, and {len(missing)} of it without one here"
    return Example(str(paths[0]), what, paths, tuple(boxes))

"""Leave out of a data set what harms it: repeated and leaked images, boxes drawn twice or empty.

What readers correct is corrected already; engine/checking/fix.py writes the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import box_iou

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.data.checks.duplicates import (
    Place,
    Signatures,
    Splits,
    find_conflict,
    find_repeats,
    record_at,
)
from rtdetr_cli.data.checks.labels import NEAR_IDENTICAL_IOU
from rtdetr_cli.data.collection import Box, Collection, LabelledImage
from rtdetr_cli.data.selection import take_images

CHANGES = "changes.txt"
"""List of what changed, in the folder of the cleaned copy."""
_SAME_IOU = NEAR_IDENTICAL_IOU - 1e-4
"""A little less than what is reported, as formats round."""


class Change(NamedTuple):
    """What is different in the copy: a file or a place in it, and why."""

    where: str
    reason: str


def without_repeats(splits: Splits, signatures: Signatures) -> tuple[Splits, list[Change]]:
    """Leave out identical images of a split but the first, and images that leak.

    Of a pair across splits that of the earlier split leaves: train before val before test.
    Near-identical images of one split stay, as they may be augmentation, and so do several entries
    of one file, which `with_joined_entries` joins.

    Args:
        splits: opened, train first; none has the same images as another one.
        signatures: of all their images.

    Raises:
        DataError: no image of a split would be left.
    """
    changes: list[Change] = []
    while leaving := _leaving(splits, signatures):
        changes += leaving.values()
        splits = {
            split: take_images(
                dataset, [n for n in range(len(dataset)) if Place(split, n) not in leaving]
            )
            for split, dataset in splits.items()
        }
        for split, dataset in splits.items():
            if not len(dataset):
                raise DataError(f"{split}: each of its images is in a later split as well")
    return splits, changes


def _leaving(splits: Splits, signatures: Signatures) -> dict[Place, Change]:
    """The images to leave out; others may turn out when these are gone."""
    leaving: dict[Place, Change] = {}
    for repeat in find_repeats(splits, signatures):
        is_leak = repeat.first.split != repeat.second.split
        place, other = repeat[:2] if is_leak else (repeat.second, repeat.first)
        path, kept = (record_at(splits, one).path for one in (place, other))
        if is_leak or (repeat.identical and path != kept):
            manner = "identical to" if repeat.identical else "looks like"
            end = f" of {other.split}" if is_leak else ""
            end += ", whose labels differ" * (find_conflict(splits, repeat) is not None)
            leaving.setdefault(place, Change(str(path), f"image left out, {manner} {kept}{end}"))
    return leaving


def with_joined_entries(collection: Collection) -> tuple[Collection, list[Change]]:
    """Give all boxes of a file that a split lists several times to its first entry."""
    changes = []
    splits = {}
    for split, images in collection.splits.items():
        entries: dict[Path, LabelledImage] = {}
        for image in images:
            first = entries.get(image.path)
            if first is None:
                entries[image.path] = image
            else:
                known = {box._replace(number=None) for box in first.boxes}
                more = [box for box in image.boxes if box._replace(number=None) not in known]
                entries[image.path] = replace(first, boxes=(*first.boxes, *more))
                changes.append(Change(str(image.path), f"entries of {split} for this file joined"))
        splits[split] = [*entries.values()]
    return replace(collection, splits=splits), changes


def without_doubtful_boxes(collection: Collection) -> tuple[Collection, list[Change]]:
    """Leave out boxes without area, and boxes that nearly coincide with another of their class."""
    changes: list[Change] = []
    splits = {
        split: [_cleaned(image, collection.names, changes) for image in images]
        for split, images in collection.splits.items()
    }
    return replace(collection, splits=splits), changes


def _cleaned(image: LabelledImage, names: tuple[str, ...], changes: list[Change]) -> LabelledImage:
    corners = np.array([box.xywh for box in image.boxes], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    overlap = box_iou(torch.from_numpy(corners), torch.from_numpy(corners)).numpy()
    kept: list[int] = []
    for number, box in enumerate(image.boxes):
        reason = _reason(number, kept, image.boxes, overlap)
        if reason is None:
            kept.append(number)
        else:
            place = ", ".join(f"{value:.6g}" for value in box.xywh)
            what = f"box left out: {names[box.label]} at {place} (x, y, w, h) {reason}"
            changes.append(Change(str(image.path), what))
    return replace(image, boxes=tuple(image.boxes[number] for number in kept))


def _reason(
    number: int, kept: list[int], boxes: tuple[Box, ...], overlap: npt.NDArray[np.float64]
) -> str | None:
    """Why a box is left out, after the boxes that are kept."""
    box = boxes[number]
    if not all(side > 0 for side in box.xywh[2:]):
        return "has no area"
    for other in kept:
        alike = overlap[number, other] >= _SAME_IOU and not box.crowd and not boxes[other].crowd
        if alike and box.label == boxes[other].label:
            return f"has IoU {overlap[number, other]:.3f} with another one"
    return None


def write_changes(folder: Path, changes: Sequence[Change]) -> None:
    """Write a line `place<TAB>reason` for each change."""
    lines = [f"{change.where}\t{change.reason}\n" for change in changes]
    with atomic_write(folder / CHANGES) as path:
        path.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")

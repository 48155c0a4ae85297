"""The boxes of a split in a few arrays, and examples that show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rtdetr_cli.core.findings import Example, MarkedBox
from rtdetr_cli.data.dataset import DetectionDataset, Floats, Ints


class Boxes(NamedTuple):
    """All boxes of a split but crowd regions, image by image.

    Attributes:
        record: (N,) position of the record.
        inner: (N,) position in the record.
        corners: (N, 4) left, top, right, bottom in pixels.
        labels: (N,) class indices.
        size_hw: (N, 2) height and width of the image.
    """

    record: Ints
    inner: Ints
    corners: Floats
    labels: Ints
    size_hw: Ints


def boxes_of(dataset: DetectionDataset) -> Boxes:
    """Gather the boxes of a split."""
    records = dataset.records
    counts = np.array([len(one.labels) for one in records], np.int64)
    record = np.repeat(np.arange(len(records)), counts)
    inner = np.arange(len(record)) - np.repeat(np.cumsum(counts) - counts, counts)
    sizes = np.array([one.size_hw for one in records], np.int64).reshape(-1, 2)
    corners = np.concatenate([np.zeros((0, 4), np.float32), *(one.boxes_xyxy for one in records)])
    labels = np.concatenate([np.zeros(0, np.int64), *(one.labels for one in records)])
    kept = ~np.concatenate([np.zeros(0, bool), *(one.iscrowd for one in records)])
    return Boxes(record[kept], inner[kept], corners[kept], labels[kept], sizes[record][kept])


class Pairs(NamedTuple):
    """Pairs of boxes of one image: positions of both in Boxes, and their IoU."""

    first: Ints
    second: Ints
    iou: npt.NDArray[np.float64]


def overlapping(boxes: Boxes, least_iou: float) -> Pairs:
    """All pairs of boxes of one image with an IoU above `least_iou`.

    Boxes are sorted by image and left edge. In such a pair the left edges differ by less than
    (1 - least_iou) of the wider box, which is at most 1 / least_iou as wide as the other, so that
    few neighbours have to be compared.
    """
    corners = boxes.corners.astype(np.float64)
    order = np.lexsort((corners[:, 0], boxes.record))
    corners, record = corners[order], boxes.record[order]
    reach = corners[:, 0] + (1 - least_iou) / least_iou * (corners[:, 2] - corners[:, 0])
    firsts, seconds, ious = [], [], []
    first = np.arange(len(order))
    for step in range(1, len(order)):
        first = first[first + step < len(order)]
        second = first + step
        near = (record[second] == record[first]) & (corners[second, 0] <= reach[first])
        first, second = first[near], second[near]
        if not len(first):
            break
        iou = _iou(corners[first], corners[second])
        found = iou > least_iou
        firsts.append(order[first[found]])
        seconds.append(order[second[found]])
        ious.append(iou[found])
    nothing = np.zeros(0, np.int64)
    return Pairs(
        np.concatenate([nothing, *firsts]),
        np.concatenate([nothing, *seconds]),
        np.concatenate([np.zeros(0), *ious]),
    )


def _iou(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """IoU of corners (N, 4) with corners (N, 4); boxes have an area."""
    inner = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = inner.clip(0).prod(axis=1)
    areas = [(one[:, 2:] - one[:, :2]).prod(axis=1) for one in (a, b)]
    return np.asarray(shared / (areas[0] + areas[1] - shared))


def box_example(
    dataset: DetectionDataset, boxes: Boxes, positions: Sequence[int], what: str
) -> Example:
    """An example at the first of some boxes of one image, with all of them marked."""
    record = dataset.records[int(boxes.record[positions[0]])]
    marked = tuple(
        MarkedBox(
            tuple(boxes.corners[position].tolist()), dataset.names[int(boxes.labels[position])]
        )
        for position in positions
    )
    place = record.place_of(int(boxes.inner[positions[0]]))
    return Example(place, what, (record.path,), marked)

"""Check the boxes of each split: repeats, size, number; from the records, without the images."""

from __future__ import annotations

import numpy as np

from rtdetr_cli.core.findings import MAX_EXAMPLES, Example, Finding
from rtdetr_cli.data.checks.boxes import Boxes, box_example, boxes_of, overlapping
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.kinds import make_finding

NEAR_IDENTICAL_IOU = 0.95
"""IoU above which two boxes are one: careful annotators of one object agree to about 0.9
(Papadopoulos et al. 2017, extreme clicking: 0.88 on VOC), and two objects are never so alike."""
MIN_BOX_SIDE = 2.0
"""Pixels at the input size: a quarter of a cell of the finest feature map, which has stride 8."""


def check_labels(
    splits: dict[str, DetectionDataset], size_hw: tuple[int, int], num_queries: int
) -> list[Finding]:
    """Check the boxes of each split.

    Args:
        splits: opened splits by name.
        size_hw: height and width of the input of the network.
        num_queries: of the model; an image cannot have more detections.
    """
    findings = []
    for split, dataset in splits.items():
        boxes = boxes_of(dataset)
        findings += _near_identical(split, dataset, boxes)
        findings += _tiny(split, dataset, boxes, size_hw)
        findings += _many(split, dataset, boxes, num_queries)
    return findings


def _near_identical(split: str, dataset: DetectionDataset, boxes: Boxes) -> list[Finding]:
    pairs = overlapping(boxes, NEAR_IDENTICAL_IOU)
    is_same = boxes.labels[pairs.first] == boxes.labels[pairs.second]
    findings = []
    for kind, chosen in (("box-near-identical", is_same), ("box-of-two-classes", ~is_same)):
        found = np.flatnonzero(chosen)
        worst = found[np.argsort(-pairs.iou[found], kind="stable")][:MAX_EXAMPLES]
        examples = []
        for one in worst.tolist():
            pair = sorted([int(pairs.first[one]), int(pairs.second[one])], reverse=True)
            record = dataset.records[int(boxes.record[pair[0]])]
            names = [dataset.names[int(boxes.labels[position])] for position in pair]
            other = record.place_of(int(boxes.inner[pair[1]])).removeprefix(record.source)
            what = f"{names[0]}, IoU {pairs.iou[one]:.3f} with {names[1]} at {other.strip(']')}"
            examples.append(box_example(dataset, boxes, pair, what))
        if examples:
            findings.append(make_finding(kind, (split,), examples, len(found)))
    return findings


def _tiny(
    split: str, dataset: DetectionDataset, boxes: Boxes, size_hw: tuple[int, int]
) -> list[Finding]:
    sides_wh = boxes.corners[:, 2:] - boxes.corners[:, :2]
    scaled = sides_wh / boxes.size_hw[:, ::-1] * np.array(size_hw[::-1])
    shortest = scaled.min(axis=1, initial=np.inf)
    found = np.flatnonzero(shortest < MIN_BOX_SIDE)
    if not len(found):
        return []
    at = "x".join(map(str, size_hw[::-1]))
    examples = [
        box_example(dataset, boxes, [one], f"{scaled[one, 0]:.2g}x{scaled[one, 1]:.2g} at {at}")
        for one in found[np.argsort(shortest[found], kind="stable")][:MAX_EXAMPLES].tolist()
    ]
    return [make_finding("box-tiny", (split,), examples, len(found))]


def _many(split: str, dataset: DetectionDataset, boxes: Boxes, num_queries: int) -> list[Finding]:
    counts = np.bincount(boxes.record, minlength=len(dataset))
    found = np.flatnonzero(counts > num_queries)
    examples = []
    for one in found[np.argsort(-counts[found], kind="stable")][:MAX_EXAMPLES].tolist():
        path = dataset.records[one].path
        examples.append(Example(str(path), f"{counts[one]} boxes, {num_queries} queries", (path,)))
    if not examples:
        return []
    return [make_finding("image-with-many-boxes", (split,), examples, len(found))]

"""Match detections to boxes at IoU 0.5: curves over confidence, confusion matrix.

COCO's rules (best score first, each takes the free box that it overlaps most, crowd boxes take any
number and count for nothing), on flat arrays of the whole split, so that the loop runs only over
pairs that overlap. Legend: D detections, G ground-truth boxes, K classes, S confidence steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IOU_THRESHOLD = 0.5
CONFIDENCES = np.linspace(0.0, 1.0, 1001)
CONFUSION_MIN_SCORE = 0.25
"""Minimum score in the confusion matrix; the default of `rtdetr predict`."""

_CANDIDATES = 2**18
"""Pairs to compute at a time, about 40 MB."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Truth:
    """Ground truth of a split.

    Attributes:
        images: (G,) image ids.
        classes: (G,) class indices.
        boxes_xywh: (G, 4) corner and size in pixels.
        crowd: (G,) whether the box covers a group.
        areas: (G,) of the object in pixels, which may be less than that of its box.
    """

    images: Ints
    classes: Ints
    boxes_xywh: Floats
    crowd: NDArray[np.bool_]
    areas: Floats

    def keep(self, index: Ints | NDArray[np.bool_]) -> Truth:
        """Select boxes by a mask or by indices."""
        return Truth(
            self.images[index],
            self.classes[index],
            self.boxes_xywh[index],
            self.crowd[index],
            self.areas[index],
        )


@dataclass(frozen=True)
class Found:
    """Detections of a split.

    Attributes:
        images: (D,) image ids.
        classes: (D,) class indices.
        boxes_xywh: (D, 4) corner and size in pixels.
        scores: (D,) in 0..1.
    """

    images: Ints
    classes: Ints
    boxes_xywh: Floats
    scores: Floats

    def keep(self, index: Ints | NDArray[np.bool_]) -> Found:
        """Select detections by a mask or by indices."""
        return Found(
            self.images[index], self.classes[index], self.boxes_xywh[index], self.scores[index]
        )


@dataclass(frozen=True)
class Curves:
    """Precision, recall and F1 at IoU 0.5 when detections below a confidence are dropped.

    Attributes:
        precision: (K, S); 1 above the best score of a class, 0 where it has no detection at all.
        recall: (K, S).
        instances: (K,) ground-truth boxes without crowds; classes with none are nan above.
        images: (K,) images that hold the class.
    """

    precision: Floats
    recall: Floats
    instances: Ints
    images: Ints

    @cached_property
    def f1(self) -> Floats:
        """(K, S) harmonic mean of precision and recall."""
        total = self.precision + self.recall
        product = 2 * self.precision * self.recall
        return np.divide(product, total, out=np.zeros_like(total), where=total != 0)

    @property
    def present(self) -> Ints:
        """Indices of the classes that have ground truth."""
        return np.flatnonzero(self.instances)

    @cached_property
    def best(self) -> int:
        """Index of the confidence with the highest mean F1 of the classes present; 0 if none."""
        return int(self.f1[self.present].sum(axis=0).argmax())

    @property
    def best_confidence(self) -> float:
        """The confidence at which `mp`, `mr` and precision and recall per class are reported."""
        return float(CONFIDENCES[self.best])

    @property
    def best_confidence_per_class(self) -> Floats:
        """(K,) the confidence with the best F1 of each class, nan where it has no ground truth."""
        best = CONFIDENCES[np.nan_to_num(self.f1).argmax(axis=1)]
        return np.where(self.instances > 0, best, np.nan)


def keep_best_per_class(found: Found, limit: int) -> Found:
    """The best `limit` detections of every image and class (COCO's maxDets)."""
    groups = _group(found.images, found.classes)
    order = np.lexsort((-found.scores, groups))
    groups = groups[order]
    rank = np.arange(len(groups)) - np.searchsorted(groups, groups)
    return found.keep(np.sort(order[rank < limit]))


def match(found: Found, truth: Truth, any_class: bool = False) -> Ints:
    """Index of the box that each detection matches at IoU 0.5, or -1.

    Args:
        found: D detections.
        truth: G boxes.
        any_class: a detection may take a box of another class (for the confusion matrix); a crowd
            box only ever excuses its own class.

    Returns:
        (D,) index into `truth`; it may be a crowd box, then the detection counts for nothing.
    """
    pairs = overlapping_pairs(found, truth, any_class)
    return assign(pairs, found, truth.crowd, truth.crowd)


class Pairs(NamedTuple):
    """Detections and boxes of one image that overlap.

    Attributes:
        detections: (P,) indices of detections.
        boxes: (P,) indices of boxes.
        ious: (P,) their IoU.
    """

    detections: Ints
    boxes: Ints
    ious: Floats

    def keep(self, mask: NDArray[np.bool_]) -> Pairs:
        """Select pairs by a mask."""
        return Pairs(self.detections[mask], self.boxes[mask], self.ious[mask])


def assign(
    pairs: Pairs, found: Found, crowd: NDArray[np.bool_], ignored: NDArray[np.bool_]
) -> Ints:
    """Index of the box that each detection takes among the pairs, or -1.

    Args:
        pairs: from `overlapping_pairs`.
        found: D detections.
        crowd: (G,) boxes that any number of detections may take.
        ignored: (G,) boxes that a detection takes only if no other is free.
    """
    detections, boxes, ious = pairs
    # Best score first, ties in order of appearance; within one detection boxes that count before
    # ignored ones, then the largest IoU, and of equals the last, as in pycocotools.
    order = np.lexsort((-boxes, -ious, ignored[boxes], detections, -found.scores[detections]))
    matches = np.full(len(found.scores), -1, dtype=np.int64)
    taken = np.zeros(len(crowd), dtype=np.bool_)
    for detection, box in zip(detections[order].tolist(), boxes[order].tolist(), strict=True):
        if matches[detection] < 0 and not taken[box]:
            matches[detection] = box
            taken[box] = not crowd[box]
    return matches


def confidence_curves(found: Found, truth: Truth, matches: Ints, num_classes: int) -> Curves:
    """Precision and recall of every class at every confidence.

    Args:
        found: D detections.
        truth: G boxes.
        matches: (D,) from `match`.
        num_classes: K.
    """
    real = ~truth.crowd
    instances = np.bincount(truth.classes[real], minlength=num_classes)
    seen = np.unique(np.stack([truth.images[real], truth.classes[real]]), axis=1)[1]
    precision = np.full((num_classes, len(CONFIDENCES)), np.nan)
    recall = precision.copy()
    counted = np.flatnonzero(~excused(truth, matches))
    counted = counted[np.lexsort((-found.scores[counted], found.classes[counted]))]
    ends = np.cumsum(np.append(0, np.bincount(found.classes[counted], minlength=num_classes)))
    for index in np.flatnonzero(instances):
        mine = counted[ends[index] : ends[index + 1]]
        hits = np.concatenate([[0], np.cumsum(matches[mine] >= 0)])
        kept = np.searchsorted(-found.scores[mine], -CONFIDENCES, side="right")
        recall[index] = hits[kept] / instances[index]
        nothing_kept = 1.0 if len(mine) else 0.0
        precision[index] = np.where(kept > 0, hits[kept] / np.maximum(kept, 1), nothing_kept)
    return Curves(precision, recall, instances, np.bincount(seen, minlength=num_classes))


def confusion_matrix(found: Found, truth: Truth, num_classes: int) -> Ints:
    """Count true against predicted classes at IoU 0.5.

    Returns:
        (K+1, K+1) counts, a row per predicted class, a column per true class; the last row holds
        boxes that nothing found, the last column detections of nothing.
    """
    found = found.keep(found.scores >= CONFUSION_MIN_SCORE)
    matches = match(found, truth, any_class=True)
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    counts = ~excused(truth, matches)
    true_classes = np.append(truth.classes, num_classes)[matches]  # -1 reads the background
    np.add.at(matrix, (found.classes[counts], true_classes[counts]), 1)
    missed = ~truth.crowd
    missed[matches[matches >= 0]] = False
    matrix[-1, :-1] = np.bincount(truth.classes[missed], minlength=num_classes)
    return matrix


def excused(truth: Truth, matches: Ints) -> NDArray[np.bool_]:
    """(D,) whether a detection is on a crowd box and is ignored."""
    return np.append(truth.crowd, False)[matches]


def _group(images: Ints, classes: Ints) -> Ints:
    """A number for each pair of image and class."""
    _, places = np.unique(images, return_inverse=True)
    return places * (1 + int(classes.max(initial=0))) + classes


def overlapping_pairs(
    found: Found, truth: Truth, any_class: bool = False, min_iou: float = IOU_THRESHOLD
) -> Pairs:
    """All pairs of one image (and one class, unless `any_class`) with this IoU or more."""
    images = np.concatenate([found.images, truth.images])
    classes = np.concatenate([found.classes, truth.classes])
    groups = images if any_class else _group(images, classes)
    found_groups, truth_groups = np.split(groups, [len(found.images)])
    order = np.argsort(found_groups, kind="stable")
    first = np.searchsorted(found_groups, truth_groups, side="left", sorter=order)
    counts = np.searchsorted(found_groups, truth_groups, side="right", sorter=order) - first
    # Some boxes at a time, because the candidates of a split take more memory than its detections.
    cuts = np.flatnonzero(np.diff(np.cumsum(counts) // _CANDIDATES)) + 1
    parts = [
        _close_pairs(found, truth, boxes, order, (first[boxes], counts[boxes]), min_iou)
        for boxes in np.split(np.arange(len(counts)), cuts)
    ]
    return Pairs(*map(np.concatenate, zip(*parts, strict=True)))


def _close_pairs(
    found: Found,
    truth: Truth,
    boxes: Ints,
    order: Ints,
    candidates: tuple[Ints, Ints],
    min_iou: float,
) -> Pairs:
    """The pairs of some boxes: `order[first : first + count]` are the candidates of each."""
    first, counts = candidates
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    detections, boxes = order[np.repeat(first, counts) + offsets], np.repeat(boxes, counts)
    ious = _iou(found.boxes_xywh[detections], truth.boxes_xywh[boxes], truth.crowd[boxes])
    close = ious >= min_iou
    close &= ~truth.crowd[boxes] | (found.classes[detections] == truth.classes[boxes])
    return Pairs(detections[close], boxes[close], ious[close])


def _iou(found_xywh: Floats, truth_xywh: Floats, crowd: NDArray[np.bool_]) -> Floats:
    """IoU of pairs (N, 4), (N, 4); with a crowd box the share of the detection inside it."""
    low = np.maximum(found_xywh[:, :2], truth_xywh[:, :2])
    high = np.minimum(found_xywh[:, :2] + found_xywh[:, 2:], truth_xywh[:, :2] + truth_xywh[:, 2:])
    inter = np.clip(high - low, 0, None).prod(axis=1)
    found_area = found_xywh[:, 2:].prod(axis=1)
    union = np.where(crowd, found_area, found_area + truth_xywh[:, 2:].prod(axis=1) - inter)
    ious: Floats = np.divide(inter, union, out=np.zeros_like(inter), where=inter > 0)
    return ious

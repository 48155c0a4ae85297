"""Suspected label errors: where confident detections and the labels of a split disagree.

The kinds are those of ObjectLab (Tkachenko et al. 2023, arXiv 2309.00832), overlooked, swapped and
badly located, and boxes where the detector finds nothing. What counts as confident is measured on
the split itself, class by class, as in confident learning (Northcutt et al. 2021, arXiv
1911.00068). Legend: D detections, G boxes, K classes, P pairs of a detection and a box.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import batched_nms

from rtdetr_cli.evaluation.matching import (
    IOU_THRESHOLD,
    Floats,
    Found,
    Ints,
    Truth,
    overlapping_pairs,
)

Bools = NDArray[np.bool_]

NEAR = 0.2
"""Least IoU of a shifted box with the object, as the detector places it."""
TOUCHES = 0.3
"""A detection with this IoU speaks against a spurious label; below, it is of another object."""
FITS = 0.6
"""A box that the detector finds with this IoU is not shifted."""
SURE = 0.99
"""Least confidence of the detections that say how often such detections have a label."""
MIN_SUSPICION = 0.5
"""Suspicions below are not listed."""
PRIOR = 5
"""Weight of all classes together in the statistics of one, in boxes; for classes with few."""
SIZE_NEIGHBOURS = 10
"""Least number of next smaller and of next larger boxes that count as of about one size."""


class Kind(Enum):
    """What may be wrong; the value is the id of the finding."""

    MISSING = "suspected-missing-label"
    SPURIOUS = "suspected-spurious-label"
    SWAP = "suspected-class-swap"
    SHIFTED = "suspected-shifted-box"


@dataclass(frozen=True)
class Suspicion:
    """One suspected label error.

    Attributes:
        kind: what may be wrong.
        score: 0..1, 1 is the most suspicious; comparable between kinds.
        box: index of the suspected box; None if a label is missing.
        detection: index of the detection that contradicts it; None for a spurious label.
    """

    kind: Kind
    score: float
    box: int | None
    detection: int | None


@dataclass(frozen=True)
class LabelErrors:
    """What a detector says about the labels of a split.

    Attributes:
        suspicions: with a score of MIN_SUSPICION or more, the most suspicious first.
        share_found: share of the boxes that the detector finds with e >= 0.5, where labels and
            detector agree; 1 without boxes. If it is low, the detector is no judge of these labels.
    """

    suspicions: list[Suspicion]
    share_found: float


def label_errors(found: Found, truth: Truth) -> LabelErrors:
    """Rank the suspected label errors of a split, most suspicious first.

    Each score is how confidently the detector contradicts the label, times how often it agrees with
    labels of this class, size or place. With the confidence e of a detection (see `_Confidence`),
    the largest at a place and 0 where there is none:

    - class swap: e(other class, IoU >= 0.5) (1 - e(own class, IoU >= 0.5)) s
    - shifted box: e(own class, IoU 0.2 to 0.6) p (1 - e(own class, IoU >= 0.6, or another class,
      IoU >= 0.5)), where the detection overlaps no box more than this one
    - spurious label: (1 - e(any class, IoU >= 0.3)) s
    - missing label: (e + u) / 2 (1 - IoU with the nearest box) l, where that IoU is below 0.3

    s is the share of boxes of the class that the detector finds with e >= 0.5, or of boxes of about
    this size, whichever is less; p the share of boxes of the class that it places with a larger
    IoU; l the share of its confident detections (e >= 0.99) of the class that touch a box. u is the
    share of found boxes of the class with a lower score. A box has the kind with the largest score.
    Crowd and difficult boxes are not suspected, nor what is found inside them.

    Args:
        found: all detections of the detector, also those with low scores.
        truth: G boxes.
    """
    excused = _inside_crowds(found, truth)
    real = np.flatnonzero(~truth.crowd)
    split = _Split(found, truth.keep(real), excused)
    if not split.confidence.is_known:
        return LabelErrors([], 0.0 if len(real) else 1.0)
    suspicions = [*_of_boxes(split, real), *_missing(split)]
    listed = [one for one in suspicions if one.score >= MIN_SUSPICION]
    share_found = float((split.confidence.of_box >= 0.5).mean())
    return LabelErrors(sorted(listed, key=lambda one: -one.score), share_found)


class _Split:
    """Detections, boxes without crowds, and how they overlap.

    Attributes:
        excused: (D,) detections inside crowd or difficult boxes.
        pairs: P pairs with IoU >= NEAR, of any class.
        same: (P,) whether both are of one class.
        nearest: (D,) IoU of each detection with the box that it overlaps most.
        own: (G,) the best score among the detections of the class of a box, or 0.
        confidence: of the detections.
    """

    def __init__(self, found: Found, truth: Truth, excused: Bools) -> None:
        self.found, self.truth, self.excused = found, truth, excused
        self.pairs = pairs = overlapping_pairs(found, truth, any_class=True, min_iou=NEAR)
        self.same = found.classes[pairs.detections] == truth.classes[pairs.boxes]
        self.nearest = np.zeros(len(found.scores))
        np.maximum.at(self.nearest, pairs.detections, pairs.ious)
        self.own, _ = self.best(self.same & (pairs.ious >= IOU_THRESHOLD), found.scores)
        self.confidence = _Confidence(found, truth, self.own)

    @property
    def is_nearest(self) -> Bools:
        """(P,) whether the detection overlaps no box more than this one."""
        return self.pairs.ious >= self.nearest[self.pairs.detections]

    def best(self, mask: Bools, values: Floats) -> tuple[Floats, Ints]:
        """Largest value of a detection at each box, among the pairs of a mask.

        Returns:
            (G,) the value, 0 if there is none, and (G,) index of the pair, or -1.
        """
        chosen = np.flatnonzero(mask)
        chosen = chosen[np.argsort(values[self.pairs.detections[chosen]], kind="stable")]
        pair = np.full(len(self.truth.classes), -1, dtype=np.int64)
        pair[self.pairs.boxes[chosen]] = chosen  # of several values, the last is assigned
        of_pair = np.append(values[self.pairs.detections], 0.0)
        return of_pair[pair], pair


class _Confidence:
    """How sure a detector is of each detection, on the scale of the boxes that it finds.

    The best detections of the boxes of a class are its reference. Their mean score is the threshold
    of confident learning; dividing by it makes a detector or a class with low scores comparable
    with others. Wrong labels change it little as long as most labels are right.

    Args:
        found: D detections.
        truth: G boxes.
        own: (G,) best score of a detection of the same class at each box, 0 if there is none.

    Attributes:
        level: (D,) e = min(1, score / mean score of the reference).
        rank: (D,) u, the share of the reference with a lower score.
        of_box: (G,) e of the best detection of its class at each box.
        is_known: whether there is a reference at all.
    """

    def __init__(self, found: Found, truth: Truth, own: Floats) -> None:
        everything = np.sort(own[own > 0])
        self.is_known = len(everything) > 0
        self.level, self.rank = np.zeros((2, len(found.scores)))
        self.of_box = np.zeros(len(own))
        if not self.is_known:
            return
        for index in np.unique(np.concatenate([found.classes, truth.classes])):
            detected, labelled = found.classes == index, truth.classes == index
            reference = np.sort(own[labelled & (own > 0)])
            scores = found.scores[detected]
            mean = _shrunk(reference, everything)
            self.level[detected] = np.minimum(1, scores / mean)
            self.of_box[labelled] = np.minimum(1, own[labelled] / mean)
            self.rank[detected] = _share_below(scores, reference, everything)


def _of_boxes(split: _Split, numbers: Ints) -> Iterator[Suspicion]:
    """One suspicion for each box, of the kind with the largest score.

    Args:
        split: with G boxes.
        numbers: (G,) by which the boxes are known outside.
    """
    level, ious = split.confidence.level, split.pairs.ious
    counts = ~split.excused[split.pairs.detections]
    other, of_other = split.best(counts & ~split.same & (ious >= IOU_THRESHOLD), level)
    beside, of_beside = split.best(counts & split.same & split.is_nearest & (ious < FITS), level)
    fits, _ = split.best(split.same & (ious >= FITS), level)
    touches, _ = split.best(ious >= TOUCHES, level)
    seen = _seen(split)
    scores = np.stack(
        [
            other * (1 - split.confidence.of_box) * seen,
            beside * (1 - np.maximum(fits, other)) * _placed_better(split, of_beside),
            (1 - touches) * seen,
        ]
    )
    pairs = np.stack([of_other, of_beside, np.full(len(numbers), -1)])
    kinds = (Kind.SWAP, Kind.SHIFTED, Kind.SPURIOUS)
    for box, kind in enumerate(scores.argmax(axis=0).tolist()):
        pair = pairs[kind, box]
        detection = None if pair < 0 else int(split.pairs.detections[pair])
        yield Suspicion(kinds[kind], float(scores[kind, box]), int(numbers[box]), detection)


def _missing(split: _Split) -> Iterator[Suspicion]:
    """Detections without a box; of those that touch each other, the most confident one."""
    found, confidence = split.found, split.confidence
    has_box = (split.nearest >= TOUCHES).astype(np.float64)
    sure = confidence.level >= SURE
    labelled = np.zeros(len(found.scores))
    for index in np.unique(found.classes):
        mine = found.classes == index
        labelled[mine] = _shrunk(has_box[mine & sure], has_box[sure])
    scores = (confidence.level + confidence.rank) / 2 * (1 - split.nearest) * labelled
    is_candidate = ~split.excused & (split.nearest < TOUCHES) & (scores >= MIN_SUSPICION)
    candidates = np.flatnonzero(is_candidate)
    corners, sizes = np.split(found.boxes_xywh[candidates], 2, axis=1)
    kept = batched_nms(
        torch.from_numpy(np.hstack([corners, corners + sizes])),
        torch.from_numpy(scores[candidates]),
        torch.from_numpy(found.images[candidates]),
        TOUCHES,
    )
    for index in candidates[kept.numpy()].tolist():
        yield Suspicion(Kind.MISSING, float(scores[index]), None, index)


def _seen(split: _Split) -> Floats:
    """(G,) s: how often the detector finds boxes of this class, or of about this size."""
    classes, sizes = split.truth.classes, split.truth.boxes_xywh[:, 2:].prod(axis=1)
    is_seen = (split.confidence.of_box >= 0.5).astype(np.float64)
    by_class = np.zeros(len(classes))
    for index in np.unique(classes):
        by_class[classes == index] = _shrunk(is_seen[classes == index], is_seen)
    order, place = np.argsort(sizes, kind="stable"), np.arange(len(sizes))
    reach = max(SIZE_NEIGHBOURS, len(sizes) // 20)
    low, high = np.maximum(place - reach, 0), np.minimum(place + reach + 1, len(sizes))
    num_seen = np.concatenate([[0], np.cumsum(is_seen[order])])
    by_size = np.empty(len(sizes))
    by_size[order] = (num_seen[high] - num_seen[low]) / (high - low)
    return np.minimum(by_class, by_size)


def _placed_better(split: _Split, pairs_beside: Ints) -> Floats:
    """(G,) p: how often the detector places boxes of this class with a larger IoU than this one."""
    classes, ious = split.truth.classes, np.append(split.pairs.ious, 0.0)
    _, pairs_own = split.best(split.same & split.is_nearest, split.found.scores)
    away, away_here = -ious[pairs_own], -ious[pairs_beside]
    share = np.zeros(len(classes))
    for index in np.unique(classes):
        mine = classes == index
        share[mine] = _share_below(away_here[mine], np.sort(away[mine]), np.sort(away))
    return share


def _shrunk(of_class: Floats, of_all: Floats) -> float:
    """Mean of the values of a class, with that of all classes as PRIOR values more."""
    among_all = of_all.mean() if len(of_all) else 0.0
    return float((of_class.sum() + PRIOR * among_all) / (len(of_class) + PRIOR))


def _share_below(values: Floats, of_class: Floats, of_all: Floats) -> Floats:
    """Share of a class's sorted values below each value, with all classes as PRIOR values more."""
    among_all = np.searchsorted(of_all, values) / len(of_all)
    return (np.searchsorted(of_class, values) + PRIOR * among_all) / (len(of_class) + PRIOR)


def _inside_crowds(found: Found, truth: Truth) -> Bools:
    """(D,) whether at least half of a detection is inside a crowd or difficult box of any class."""
    crowds = truth.keep(truth.crowd)
    # A crowd box only takes detections of its own class there, so all are of one class.
    pairs = overlapping_pairs(
        replace(found, classes=0 * found.classes), replace(crowds, classes=0 * crowds.classes)
    )
    inside = np.zeros(len(found.scores), dtype=np.bool_)
    inside[pairs.detections] = True
    return inside

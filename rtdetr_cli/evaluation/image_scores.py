"""Score single images: F1 and errors of each, and what became of every box and detection.

All at the confidence with the best mean F1, IoU 0.5. comparison.py finds the images in which two
detectors differ, the report of `rtdetr val` shows the worst ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from rtdetr_cli.evaluation.coco import MAX_DETECTIONS, CocoEvaluator
from rtdetr_cli.evaluation.matching import (
    Floats,
    Found,
    Ints,
    Truth,
    confidence_curves,
    keep_best_per_class,
    match,
    overlapping_pairs,
)


class Verdict(Enum):
    """What became of a ground-truth box or of a detection."""

    RIGHT = "right"
    """A box that is found, or the detection that finds it."""
    MISSED = "missed"
    """A box that no detection of its class finds."""
    WRONG_CLASS = "wrong class"
    """A detection on a missed box of another class."""
    DUPLICATE = "duplicate"
    """A detection on a box that another one has found."""
    FALSE = "false"
    """A detection of nothing."""
    IGNORED = "ignored"
    """A crowd box, or a detection on one: neither right nor wrong."""


@dataclass(frozen=True)
class JudgedBox:
    """One ground-truth box or detection.

    Attributes:
        corners: left, top, right, bottom in pixels.
        label: class index.
        verdict: what became of it.
        score: of a detection; None for ground truth.
    """

    corners: tuple[float, float, float, float]
    label: int
    verdict: Verdict
    score: float | None = None


@dataclass(frozen=True)
class ImageScores:
    """F1 and errors of every image of a split, in the order of `image_ids`.

    Attributes:
        image_ids: (I,) ascending.
        f1: (I,) 1 in an image without boxes and detections.
        missed: (I,) boxes that are not found.
        false: (I,) detections that find no box, whatever the reason.
        confidence: the threshold.
        found: detections at or above it.
        truth: all boxes.
        matches: (D,) index of the box that each detection matches, or -1.
    """

    image_ids: Ints
    f1: Floats
    missed: Ints
    false: Ints
    confidence: float
    found: Found
    truth: Truth
    matches: Ints

    @property
    def errors(self) -> Ints:
        """(I,) missed boxes and false detections."""
        return self.missed + self.false

    def worst(self, limit: int) -> list[int]:
        """Ids of the images with most errors, of equals those with the lowest F1."""
        order = np.lexsort((self.f1, -self.errors))[:limit]
        ids: list[int] = self.image_ids[order[self.errors[order] > 0]].tolist()
        return ids

    def position(self, image_id: int) -> int:
        """Position of an image in the arrays."""
        return int(np.searchsorted(self.image_ids, image_id))

    def boxes(self, image_id: int) -> tuple[list[JudgedBox], list[JudgedBox]]:
        """The ground truth and the detections of an image."""
        truth, found = self.truth, self.found
        mine, detected = (np.flatnonzero(one.images == image_id) for one in (truth, found))
        hit = np.isin(mine, self.matches[detected])
        here = found.keep(detected)
        verdicts = self._verdicts(here, self.matches[detected])
        boxes = zip(_corners(truth.boxes_xywh[mine]), truth.classes[mine].tolist(), strict=True)
        labels, scores = here.classes.tolist(), here.scores.tolist()
        detections = zip(_corners(here.boxes_xywh), labels, verdicts, scores, strict=True)
        return (
            [
                JudgedBox(corners, label, _of_truth(bool(is_crowd), bool(is_hit)))
                for (corners, label), is_crowd, is_hit in zip(
                    boxes, truth.crowd[mine], hit, strict=True
                )
            ],
            [JudgedBox(*detection) for detection in detections],
        )

    def _verdicts(self, found: Found, matches: Ints) -> list[Verdict]:
        """What became of detections of one image with the given matches."""
        pairs = overlapping_pairs(found, self.truth, any_class=True)
        is_same = found.classes[pairs.detections] == self.truth.classes[pairs.boxes]
        is_free = ~np.isin(pairs.boxes, matches) & ~self.truth.crowd[pairs.boxes]
        on_same = set(pairs.detections[is_same].tolist())
        on_other = set(pairs.detections[~is_same & is_free].tolist())
        verdicts = []
        for number, box in enumerate(matches.tolist()):
            if box >= 0:
                verdicts.append(Verdict.IGNORED if self.truth.crowd[box] else Verdict.RIGHT)
            elif number in on_other:
                verdicts.append(Verdict.WRONG_CLASS)
            else:
                verdicts.append(Verdict.DUPLICATE if number in on_same else Verdict.FALSE)
        return verdicts


def score_images(evaluator: CocoEvaluator) -> ImageScores:
    """Score every image of a split."""
    found, truth = evaluator.tables()
    found = keep_best_per_class(found, MAX_DETECTIONS)
    matches, ids = match(found, truth), evaluator.image_ids
    best = confidence_curves(found, truth, matches, len(evaluator.names)).best_confidence
    kept = found.scores >= best
    found, matches = found.keep(kept), matches[kept]
    counts = ~np.append(truth.crowd, False)[matches]

    def per_image(images: Ints) -> Ints:
        return np.bincount(np.searchsorted(ids, images), minlength=len(ids))

    hits = per_image(found.images[counts & (matches >= 0)])
    detections = per_image(found.images[counts])
    boxes = per_image(truth.images[~truth.crowd])
    total = detections + boxes
    f1 = np.divide(2 * hits, total, out=np.ones(len(ids)), where=total > 0)
    return ImageScores(ids, f1, boxes - hits, detections - hits, best, found, truth, matches)


def _of_truth(is_crowd: bool, is_hit: bool) -> Verdict:
    if is_crowd:
        return Verdict.IGNORED
    return Verdict.RIGHT if is_hit else Verdict.MISSED


def _corners(boxes_xywh: Floats) -> list[tuple[float, float, float, float]]:
    corners = np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in corners.tolist()]

"""AP of weighted images: how AP changes when some images count twice and others not at all.

A bootstrap resample is a weight per image. Matching and order of the detections do not depend on
it, so both are computed once; comparison.py draws the weights. Legend: R resamples, I images,
K classes, A areas, T IoU thresholds, D detections, E detections that match a box ("events").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from rtdetr_cli.evaluation.matching import (
    Floats,
    Found,
    Ints,
    Pairs,
    Truth,
    assign,
    keep_best_per_class,
    overlapping_pairs,
)

Bools = NDArray[np.bool_]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = ((0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10))
"""All, small, medium and large objects in square pixels, limits included (pycocotools Params)."""
MAX_DETECTIONS = 100
"""Detections per image and class that count in AP, best first (COCO's maxDets)."""
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


class Events(NamedTuple):
    """The detections of one class and area that match a box, best score first.

    Attributes:
        images: (E,) place of the image.
        before: (E, I) number of detections in the area per image, from the event before to this.
        is_hit: (T, E) it matches a box that counts.
        change: (T, E) what it adds to the counted detections besides `before`: -1 where it takes an
            ignored box, 1 where it is outside of the area but finds a box inside.
        boxes: (1, I) boxes that count, per image.
    """

    images: Ints
    before: csr_array
    is_hit: Bools
    change: NDArray[np.int32]
    boxes: csr_array


class WeightedAP:
    """COCO's AP of one detector as a function of the weights of the images."""

    def __init__(
        self,
        found: Found,
        truth: Truth,
        image_ids: Ints,
        num_classes: int,
        areas: Sequence[tuple[float, float]] = AREAS,
    ) -> None:
        """Match the detections.

        Args:
            found: D detections, images in order of their ids.
            truth: the boxes.
            image_ids: (I,) ascending.
            num_classes: K.
            areas: limits of the A areas.
        """
        found = keep_best_per_class(found, MAX_DETECTIONS)
        pairs = overlapping_pairs(found, truth)
        self.num_images, self.num_classes = len(image_ids), num_classes
        self._events = [
            _events_of_area(found, truth, pairs, area, image_ids, num_classes) for area in areas
        ]

    def __call__(self, weights: Ints) -> Floats:
        """AP of every resample.

        Args:
            weights: (R, I) how often each image counts.

        Returns:
            (R, A, K, T), nan where no box counts.
        """
        per_image = np.ascontiguousarray(weights.T, dtype=np.int32)
        shape = (len(weights), len(self._events), self.num_classes, len(IOU_THRESHOLDS))
        values = np.full(shape, np.nan)
        for area, classes in enumerate(self._events):
            for index, events in enumerate(classes):
                values[:, area, index] = _ap(events, per_image)
        return values


def summarize(values: Floats) -> Floats:
    """(R, 6) METRICS of the (R, A, K, T) of `WeightedAP`; nan where no box counts."""
    everything = values[:, 0]
    parts = [everything, everything[..., :1], everything[..., 5:6], *np.moveaxis(values, 1, 0)[1:]]
    return np.stack([nan_mean(part.reshape(len(part), -1)) for part in parts], axis=1)


def nan_mean(values: Floats) -> Floats:
    """Mean over the last axis of what is not nan; nan if nothing is left, without a warning."""
    is_known = ~np.isnan(values)
    count, total = is_known.sum(axis=-1), np.where(is_known, values, 0).sum(axis=-1)
    means: Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return means


def _events_of_area(
    found: Found,
    truth: Truth,
    pairs: Pairs,
    area: tuple[float, float],
    image_ids: Ints,
    num_classes: int,
) -> list[Events]:
    """Match the detections for one area and return the events of each class."""
    low, high = area
    ignored = truth.crowd | (truth.areas < low) | (truth.areas > high)
    sizes = found.boxes_xywh[:, 2] * found.boxes_xywh[:, 3]
    inside = (sizes >= low) & (sizes <= high)
    matches = np.stack(
        [
            assign(pairs.keep(pairs.ious >= threshold), found, truth.crowd, ignored)
            for threshold in IOU_THRESHOLDS
        ]
    )
    order = np.argsort(-found.scores, kind="stable")
    events = []
    for index in range(num_classes):
        mine = order[found.classes[order] == index]
        counts = truth.images[(truth.classes == index) & ~ignored]
        boxes = np.bincount(np.searchsorted(image_ids, counts), minlength=len(image_ids))
        images = np.searchsorted(image_ids, found.images[mine])
        events.append(_events(images, inside[mine], matches[:, mine], ignored, boxes))
    return events


def _events(images: Ints, inside: Bools, matches: Ints, ignored: Bools, boxes: Ints) -> Events:
    """Reduce the D detections of one class, best score first, to those that match a box."""
    is_match = matches >= 0
    is_hit = is_match & ~np.append(ignored, True)[matches]
    places = np.flatnonzero(is_match.any(axis=0))
    counted = np.flatnonzero(inside)
    segment = np.searchsorted(places, counted)  # the first event at or after it
    is_followed = segment < len(places)  # what comes after the last event changes nothing
    rows, columns = segment[is_followed], images[counted[is_followed]]
    ones = np.ones(len(rows), np.int32)
    change = np.where(is_match, is_hit.astype(np.int32) - inside, 0)
    return Events(
        images=images[places],
        before=csr_array((ones, (rows, columns)), shape=(len(places), len(boxes))),
        is_hit=is_hit[:, places],
        change=change[:, places].astype(np.int32),
        boxes=csr_array(boxes[None].astype(np.int32)),
    )


def _ap(events: Events, weights: NDArray[np.int32]) -> Floats:
    """(R, T) AP of one class and area for the (I, R) weights."""
    num_boxes = (events.boxes @ weights)[0]
    mine = weights[events.images]  # (E, R)
    detections = np.cumsum(events.before @ weights, axis=0)
    values = [
        _ap_at(hit, detections + np.cumsum(change[:, None] * mine, axis=0), mine, num_boxes)
        if change.any()
        else _ap_at(hit, detections, mine, num_boxes)
        for hit, change in zip(events.is_hit, events.change, strict=True)
    ]
    return np.where(num_boxes[:, None] > 0, np.stack(values, axis=1), np.nan)


def _ap_at(
    is_hit: Bools, detections: NDArray[np.int32], mine: NDArray[np.int32], num_boxes: Ints
) -> Floats:
    """(R,) AP at one IoU threshold.

    Only hits matter: between two of them precision falls. Every recall level takes the best
    precision from the first hit that reaches it, so each hit counts as often as it passes levels.
    """
    if not is_hit.any():
        return np.zeros(mine.shape[1])
    hits = np.cumsum(mine[is_hit], axis=0)
    precision = hits / (detections[is_hit] + np.spacing(1.0))  # as pycocotools, no 0 / 0
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    reached = np.searchsorted(RECALLS, hits / np.maximum(num_boxes, 1), side="right")
    passed = np.diff(reached, axis=0, prepend=0)
    ap: Floats = (precision * passed).sum(axis=0) / len(RECALLS)
    return ap

"""Test-time augmentation: the network sees an image mirrored and at other sizes, too.

The boxes of an object in these variants are averaged, as in weighted boxes fusion
(arXiv 1910.13302), but grouped as at the seams of tiles (merging.py): two boxes of one variant are
never the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from rtdetr_cli.backends.load import Detector
from rtdetr_cli.config.scale import check_activations
from rtdetr_cli.core.console import say
from rtdetr_cli.core.detections import Detections
from rtdetr_cli.engine.predicting.merging import same_objects
from rtdetr_cli.engine.predicting.views import View, whole

BatchDetector: TypeAlias = "Callable[[Batch], list[Detections]]"
"""Detects in the images of a batch of a data set."""

if TYPE_CHECKING:  # torch would slow the start of `rtdetr predict`
    from rtdetr_cli.core.structures import Batch

STRIDE = 32


class Variant(NamedTuple):
    """How an image becomes one more input.

    Attributes:
        scale: of the input size.
        is_mirrored: whether left and right are exchanged.
    """

    scale: float = 1
    is_mirrored: bool = False


PLAIN = (Variant(),)
ALL_SIZES = (Variant(), Variant(1, True), Variant(0.83, True), Variant(1.2))
"""Chosen by AP on the val split of BCCD (docs/benchmarks.md)."""
ONE_SIZE = ALL_SIZES[:2]


def find_variants(
    detector: Detector, size_hw: tuple[int, int], augment: bool
) -> tuple[Variant, ...]:
    """The variants of each image that a detector sees at an input size.

    Raises:
        UsageError: the feature maps of the largest variant would be too large.
    """
    if not augment:
        return PLAIN
    if not detector.size_is_free:
        height, width = detector.preprocessing.size_hw
        say(f"augment: the file takes {height}x{width} only: images are mirrored, not scaled")
        return ONE_SIZE
    if detector.network is not None:
        largest = max(scaled(size_hw, one) for one in ALL_SIZES)
        check_activations(detector.network.config, largest, "augment=true")
    return ALL_SIZES


def scaled(size_hw: tuple[int, int], variant: Variant) -> tuple[int, int]:
    """The input size of a variant, in multiples of the stride."""
    if variant.scale == 1:
        return size_hw
    height, width = (max(1, round(side * variant.scale / STRIDE)) for side in size_hw)
    return height * STRIDE, width * STRIDE


def varied(views: list[View], variants: Sequence[Variant]) -> list[View]:
    """All variants of all views, those of a view next to each other; equal ones once."""
    return [
        *dict.fromkeys(
            replace(view, size_hw=scaled(view.size_hw, one), is_mirrored=one.is_mirrored)
            for view in views
            for one in variants
        )
    ]


def further_sizes(size_hw: tuple[int, int], variants: Sequence[Variant]) -> list[tuple[int, int]]:
    """The input sizes of the variants besides the one that is given."""
    return [*dict.fromkeys(scaled(size_hw, one) for one in variants if one.scale != 1)]


def detect_in_variants(
    detector: Detector,
    batch: Batch,
    max_det: int = 300,
    variants: Sequence[Variant] = PLAIN,
) -> list[Detections]:
    """Detect in the images of a data set, which `batch` has in the sizes of all variants."""
    inputs = {tuple(images.shape[-2:]): images for images in (batch.images, *batch.resized)}
    height, width = batch.images.shape[-2:]
    views = [varied([whole(size, (height, width))], variants) for size in batch.sizes_hw]
    by_variant = []
    for view in views[0]:
        images = inputs[view.size_hw]
        images = images.flip(-1) if view.is_mirrored else images
        by_variant.append(detector.detect(images, batch.sizes_hw, max_det))
    found = []
    for of_image, parts in zip(views, zip(*by_variant, strict=True), strict=True):
        moved = [view.to_image(part) for view, part in zip(of_image, parts, strict=True)]
        found.append(fuse_variants(of_image, moved)[1][0].keep(slice(max_det)))
    return found


def fuse_variants(
    views: list[View], found: list[Detections]
) -> tuple[list[View], list[Detections]]:
    """The first variant of each view, with the detections of all its variants as one set.

    A box is the mean of those of its object, weighted by their scores. Its score is the mean over
    all variants, 0 in those without the object.
    """
    parts: dict[tuple[int, int, int, int], list[int]] = {}
    for index, view in enumerate(views):
        parts.setdefault(view.box, []).append(index)
    if len(parts) == len(views):
        return views, found
    groups = [*parts.values()]
    fused = [
        _fused([views[index] for index in of], [found[index] for index in of]) for of in groups
    ]
    return [views[of[0]] for of in groups], fused


def _fused(views: list[View], found: list[Detections]) -> Detections:
    together, objects = same_objects(found, np.array([view.box for view in views], np.float32))
    scores = together.scores.astype(np.float64)
    boxes = np.empty((len(objects), 4), np.float32)
    sums, labels = np.empty(len(objects)), np.empty(len(objects), np.int64)
    for row, members in enumerate(objects):
        weights = scores[members]
        sums[row], labels[row] = weights.sum(), together.labels[members[0]]
        boxes[row] = weights @ together.boxes_xyxy[members] / sums[row]
    best_first = np.argsort(-sums, kind="stable")
    means = (sums / len(views)).astype(np.float32)
    return Detections(boxes, means, labels).keep(best_first)

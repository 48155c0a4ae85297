"""Select the best pairs of query and class in the outputs of a graph, as nn/postprocess.py does.

In NumPy, so that exported files run without torch. Legend: B batch, Q queries, K classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtdetr_cli.core.detections import ALL_PAIRS, Detections, Selection

Floats = NDArray[np.float32]


def rank_scores(
    scores: Floats,
    boxes_cxcywh: Floats,
    sizes_hw: list[tuple[int, int]],
    max_det: int = 300,
    selection: Selection = ALL_PAIRS,
) -> list[Detections]:
    """Select the best (query, class) pairs of each image.

    Args:
        scores: (B, Q, K) in 0..1.
        boxes_cxcywh: (B, Q, 4) as fractions of the image.
        sizes_hw: (height, width) in pixels of each original image.
        max_det: most detections per image.
        selection: the pairs to select from.

    Returns:
        One Detections per image, best first, boxes in pixels of the original image, not clipped.
    """
    classes = np.arange(scores.shape[2])
    if selection.classes is not None:
        classes = classes[np.isin(classes, selection.classes)]
    found = []
    for one, boxes, size_hw in zip(scores, boxes_cxcywh, sizes_hw, strict=True):
        competing = one[:, classes]
        if selection.one_label and len(classes):
            labels = classes[competing.argmax(axis=1)]
            competing = competing.max(axis=1, keepdims=True)
        else:
            labels = np.tile(classes, len(one))
        pairs = competing.ravel()
        order = best_first(pairs, max_det)
        queries = order // max(competing.shape[1], 1)
        found.append(Detections(in_pixels(boxes[queries], size_hw), pairs[order], labels[order]))
    return found


def best_first(scores: Floats, count: int) -> NDArray[np.int64]:
    """Indices of the `count` highest of (N,) scores, descending; NaN counts as the highest."""
    lowest_first = -np.nan_to_num(scores, nan=np.inf)
    if count < len(scores):
        chosen = np.sort(np.argpartition(lowest_first, count)[:count])
    else:
        chosen = np.arange(len(scores))
    return chosen[np.argsort(lowest_first[chosen], kind="stable")]


def in_pixels(boxes_cxcywh: Floats, size_hw: tuple[int, int]) -> Floats:
    """(N, 4) cxcywh as fractions to xyxy in pixels of an image; negative sizes count as 0."""
    centre, half = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:].clip(0) / 2
    corners = np.concatenate((centre - half, centre + half), axis=1)
    height, width = size_hw
    return np.asarray(corners * np.array([width, height, width, height], np.float32), np.float32)


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)); 0 where exp overflows."""
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)

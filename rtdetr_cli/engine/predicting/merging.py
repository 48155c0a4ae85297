"""One set of detections of an image from those of several views of it.

An object in the overlap of two tiles is found twice, and one on a border in parts. Two boxes are
the same object if they have the same class and agree where both views look: the IoU of their parts
in the common area is above a half. Boxes of one view are never merged, so that crowded objects
stay apart: the network finds each once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rtdetr_cli.core.detections import Detections
from rtdetr_cli.engine.predicting.box_iou import Floats, box_iou
from rtdetr_cli.engine.predicting.views import View

_SAME = 0.5
"""IoU of the parts of two boxes in the common area of their views."""
_NEAR_BORDER = 0.01
"""Share of the side of a tile within which a box ends at its border."""


def merge_views(views: list[View], found: list[Detections]) -> Detections:
    """Merge the detections of the whole image (the first view) and of its tiles.

    The whole image adds only boxes that are whole in no tile: of others a tile has more pixels.
    Of an object in several views the box of the smallest view is kept in which it is not cut; one
    that is cut in all gets the box around all parts. Its score is the best one.

    Args:
        views: the whole image, then the tiles.
        found: of each view, in pixels of the image.
    """
    if len(views) == 1:
        return found[0]
    areas: Floats = np.array([view.box for view in views], np.float32)
    kept = [_clipped(one, area) for one, area in zip(found, areas, strict=True)]
    kept[0] = _whole_nowhere(kept[0], areas[1:])
    together, groups = same_objects(kept, areas)
    origin = _origin(kept)
    return _merged(together, groups, _is_cut(together.boxes_xyxy, areas, origin), areas[origin])


def same_objects(found: list[Detections], areas: Floats) -> tuple[Detections, list[list[int]]]:
    """The detections of all views, and the indices of those of each object.

    Args:
        found: of each view, in pixels of the image.
        areas: (V, 4) parts of the image that the views show.
    """
    origin = _origin(found)
    together = Detections(
        np.concatenate([one.boxes_xyxy for one in found]),
        np.concatenate([one.scores for one in found]),
        np.concatenate([one.labels for one in found]),
    )
    return together, _groups(_pairs(together, origin, areas), origin.tolist())


def _origin(found: list[Detections]) -> NDArray[np.int64]:
    """(N,) view of each detection."""
    return np.repeat(np.arange(len(found)), [*map(len, found)])


def _clipped(found: Detections, area: Floats) -> Detections:
    """Boxes end at the border of their view: what is beyond was not seen."""
    low, high = np.tile(area[:2], 2), np.tile(area[2:], 2)
    return Detections(found.boxes_xyxy.clip(low, high), found.scores, found.labels)


def _whole_nowhere(found: Detections, tiles: Floats) -> Detections:
    """Those that are whole in none of the (T, 4) tiles."""
    margin = _NEAR_BORDER * (tiles[:, 2:] - tiles[:, :2])
    low, high = tiles[:, :2] + margin, tiles[:, 2:] - margin
    boxes = found.boxes_xyxy[:, None]
    inside = np.all((boxes[..., :2] >= low) & (boxes[..., 2:] <= high), axis=2)
    return found.keep(~np.any(inside, axis=1))


def _is_cut(boxes: Floats, areas: Floats, origin: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) whether a box ends at a border of its view that is not one of the image."""
    own, image = areas[origin], areas[0]
    near = _NEAR_BORDER * np.tile(own[:, 2:] - own[:, :2], 2)
    at_border = np.abs(boxes - own) <= near
    cut: NDArray[np.bool_] = (at_border & (own != image)).any(axis=1)
    return cut


def _pairs(
    found: Detections, origin: NDArray[np.int64], areas: Floats
) -> list[tuple[float, int, int]]:
    """Pairs of boxes that are the same object, as (weight, index, index)."""
    by_view = [(origin == view).nonzero()[0] for view in range(len(areas))]
    pairs: list[tuple[float, int, int]] = []
    for first, second in _neighbours(areas, [*map(len, by_view)]):
        rows, columns = by_view[first], by_view[second]
        common = (
            np.tile(np.maximum(areas[first, :2], areas[second, :2]), 2),
            np.tile(np.minimum(areas[first, 2:], areas[second, 2:]), 2),
        )
        iou = box_iou(*(found.boxes_xyxy[index].clip(*common) for index in (rows, columns)))
        same = (iou > _SAME) & (found.labels[rows][:, None] == found.labels[columns])
        # of several candidates the ones that the network is sure of
        weight = (iou * found.scores[rows][:, None] * found.scores[columns])[same].tolist()
        row, column = same.nonzero()
        pairs += zip(weight, rows[row].tolist(), columns[column].tolist(), strict=True)
    return sorted(pairs, reverse=True)


def _neighbours(areas: Floats, sizes: list[int]) -> Iterator[tuple[int, int]]:
    """Pairs of views that share an area and have detections; memory grows with the views only."""
    filled = np.array(sizes).nonzero()[0]
    for place, first in enumerate(filled.tolist()):
        others = filled[place + 1 :]
        low = np.maximum(areas[first, :2], areas[others, :2])
        high = np.minimum(areas[first, 2:], areas[others, 2:])
        yield from ((first, second) for second in others[(low < high).all(axis=1)].tolist())


def _groups(pairs: list[tuple[float, int, int]], origin: list[int]) -> list[list[int]]:
    """Join pairs, best first, into groups with at most one box of each view."""
    groups = [{view: index} for index, view in enumerate(origin)]
    for _, one, other in pairs:
        ours, theirs = groups[one], groups[other]
        if ours.keys().isdisjoint(theirs):
            ours |= theirs
            for index in theirs.values():
                groups[index] = ours
    return [[*group.values()] for group in {id(group): group for group in groups}.values()]


def _merged(
    found: Detections, groups: list[list[int]], is_cut: NDArray[np.bool_], areas: Floats
) -> Detections:
    """One detection of each group, best first."""
    boxes, scores = found.boxes_xyxy.copy(), found.scores.copy()
    sizes = ((areas[:, 2] - areas[:, 0]) * (areas[:, 3] - areas[:, 1])).tolist()
    chosen = []
    for members in groups:
        best = min(members, key=lambda index: (is_cut[index], sizes[index], -found.scores[index]))
        if is_cut[best]:
            parts = found.boxes_xyxy[members]
            boxes[best] = np.concatenate([parts[:, :2].min(axis=0), parts[:, 2:].max(axis=0)])
        scores[best] = found.scores[members].max()
        chosen.append(best)
    merged = Detections(boxes, scores, found.labels).keep(np.array(chosen, np.int64))
    return merged.keep(np.argsort(-merged.scores, kind="stable"))

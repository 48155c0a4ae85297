"""Images of a training: augmented batches, and detections on validation images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdetr_cli.core.box_ops import cxcywh_to_xyxy
from rtdetr_cli.core.boxes import Boxes
from rtdetr_cli.core.detections import Detections
from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.core.image import Pixels
from rtdetr_cli.core.opencv import cv2
from rtdetr_cli.core.results import DrawStyle
from rtdetr_cli.core.structures import Batch, Target
from rtdetr_cli.data.loader import EvalLoader
from rtdetr_cli.media.draw import draw_boxes
from rtdetr_cli.media.grid import join_tiles, num_columns

MOSAIC_IMAGES = 16
MOSAIC_SIDE = 1600
"""Length of a mosaic in pixels, about; the images are resized for it."""
MAX_ENLARGED = 3.0
"""Largest magnification of an image."""
SHOWN_SCORE = 0.25


def draw_batch(path: Path, batch: Batch, names: dict[int, str]) -> None:
    """Draw a training batch as the network sees it, with its boxes."""
    found = [_as_detections(target, batch) for target in batch.targets]
    _mosaic(path, batch, found, names, with_scores=False)


def draw_validation(
    run_dir: Path,
    batches: EvalLoader,
    names: dict[int, str],
    detect: Callable[[Batch], list[Detections]],
) -> None:
    """Draw the first validation batches: `val_batch*_labels.jpg` and `val_batch*_pred.jpg`."""
    for number, batch in enumerate(islice(batches, 3)):
        draw_batch(run_dir / f"val_batch{number}_labels.jpg", batch, names)
        height, width = batch.images.shape[-2:]
        found = detect(replace(batch, sizes_hw=[(height, width)] * len(batch)))
        shown = [one.keep(one.scores > SHOWN_SCORE) for one in found]
        path = run_dir / f"val_batch{number}_pred.jpg"
        _mosaic(path, batch, shown, names, with_scores=True)


def _as_detections(target: Target, batch: Batch) -> Detections:
    height, width = batch.images.shape[-2:]
    boxes_xyxy = cxcywh_to_xyxy(target.boxes_cxcywh).cpu().numpy()
    scores = np.ones(len(target.labels), np.float32)
    size_whwh = np.array([width, height, width, height], np.float32)
    return Detections(boxes_xyxy * size_whwh, scores, target.labels.cpu().numpy())


def _mosaic(
    path: Path, batch: Batch, found: list[Detections], names: dict[int, str], with_scores: bool
) -> None:
    """Up to sixteen images in a square grid, resized first, so that labels are small on each."""
    images = (
        (batch.images[:MOSAIC_IMAGES] * 255).byte().cpu().permute(0, 2, 3, 1).numpy()[..., ::-1]
    )
    scale = _tile_scale(len(images), images.shape[1:3])
    style = DrawStyle(conf=with_scores, line_width=2, font_size=11)
    tiles = []
    for image, one in zip(images, found, strict=False):
        tile = _resized(image, scale)
        boxes_xyxy = one.boxes_xyxy * scale
        boxes = _boxes(boxes_xyxy, one, tile)
        tiles.append(draw_boxes(tile, boxes, names, style))
    captions = [Path(name).name for name in batch.paths[:MOSAIC_IMAGES]]
    with atomic_write(path) as temporary:
        cv2.imwrite(str(temporary), join_tiles(tiles, captions))


def _tile_scale(num_tiles: int, size_hw: tuple[int, ...]) -> float:
    """Enlarge or shrink tiles so that the grid is about MOSAIC_SIDE pixels long."""
    side = MOSAIC_SIDE / num_columns(num_tiles)
    return min(side / max(size_hw), MAX_ENLARGED)


def _resized(image: Pixels, scale: float) -> Pixels:
    size_wh = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(image), size_wh, interpolation=how), np.uint8)


def _boxes(boxes_xyxy: NDArray[np.floating[Any]], found: Detections, tile: Pixels) -> Boxes:
    rows = np.column_stack((boxes_xyxy, found.scores, found.labels))
    return Boxes(rows, (tile.shape[0], tile.shape[1]))

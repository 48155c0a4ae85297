"""Mosaics of batches: up to sixteen tiles, boxes at their places, labels that do not hide them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rtdetr_cli.core.structures import Batch, Target
from rtdetr_cli.engine.training.run_pictures import MOSAIC_SIDE, draw_batch
from rtdetr_cli.media.draw import class_color


def make_batch(count: int, size_hw: tuple[int, int], boxes_cxcywh: list[list[float]]) -> Batch:
    """Grey images, all with the same boxes of class 0."""
    labels = torch.zeros(len(boxes_cxcywh), dtype=torch.int64)
    target = Target(torch.tensor(boxes_cxcywh).reshape(-1, 4), labels)
    images = torch.full((count, 3, *size_hw), 0.5)
    names = [f"folder/{number}.jpg" for number in range(count)]
    return Batch(images, [target] * count, list(range(count)), [size_hw] * count, names)


def mosaic(tmp_path: Path, batch: Batch):
    path = tmp_path / "batch.png"  # no losses of JPEG
    draw_batch(path, batch, {0: "a class with a long name"})
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    return cv2.imread(str(path))


@pytest.mark.parametrize(
    ("count", "size_hw", "columns", "rows"),
    [(1, (64, 64), 1, 1), (3, (640, 480), 2, 2), (8, (160, 160), 3, 3), (40, (32, 96), 4, 4)],
)
def test_a_mosaic_is_a_grid_of_at_most_sixteen_tiles(count, size_hw, columns, rows, tmp_path):
    image = mosaic(tmp_path, make_batch(count, size_hw, []))
    side = min(MOSAIC_SIDE / columns / max(size_hw), 3)
    height, width = (round(length * side) for length in size_hw)
    grey = (image == 127).all(axis=2)
    assert abs(grey.sum() - min(count, 16) * height * width) < 0.02 * grey.size
    assert columns * width < image.shape[1] < columns * width + 6 * (columns + 1)
    assert rows * height < image.shape[0] < rows * height + 40 * rows  # gaps and captions


def test_boxes_are_where_they_are_in_the_image(tmp_path: Path) -> None:
    image = mosaic(tmp_path, make_batch(1, (100, 200), [[0.5, 0.75, 0.5, 0.5]]))
    rows, columns = np.nonzero((image == 127).all(axis=2))
    top, left, height, width = rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1
    frame = (image[..., ::-1] == class_color(0)).all(axis=2)
    rows, columns = np.nonzero(frame[top + height * 3 // 4, None])
    assert columns.min() - left == pytest.approx(width / 4, abs=3)
    assert columns.max() - left == pytest.approx(width * 3 / 4, abs=3)


def test_labels_of_a_small_image_leave_its_boxes_visible(tmp_path: Path) -> None:
    """Sixteen tiles of 160 px with two boxes of 40 px: most of each box is still grey."""
    image = mosaic(tmp_path, make_batch(16, (160, 160), [[0.3, 0.3, 0.25, 0.25]] * 2))
    tile = image[100:180, 100:180]  # inside the first box, which covers 70 to 170 in its tile
    assert (tile == 127).all(axis=2).mean() > 0.5

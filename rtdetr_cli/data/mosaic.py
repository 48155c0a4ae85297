"""Dense one-to-one of DEIM (arXiv 2412.04234): more objects per sample, so more queries learn.

Mosaic places four images on one canvas, which is then rotated, shifted and scaled; mixup blends
the images of a batch in pairs. Constants: Intellindust-AI-Lab/DEIM, configs/base/deim.yml.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rtdetr_cli.core.image import Pixels, resize_image
from rtdetr_cli.core.opencv import cv2
from rtdetr_cli.core.structures import Target
from rtdetr_cli.data.dataset import Floats, Ints
from rtdetr_cli.data.transforms import AugmentConfig, distort, draw_distortion, finish_sample

TURN_DEGREES = 10.0
SHIFT = 0.1
SCALE = (0.5, 1.5)
MIXUP_SHARE = (0.45, 0.55)

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def mosaic(
    images: list[Pixels],
    boxes_xyxy: list[Floats],
    size_hw: tuple[int, int],
    config: AugmentConfig,
    rng: np.random.Generator,
) -> tuple[Pixels, Floats, Ints]:
    """Make a training sample of four images: top left, top right, bottom left, bottom right.

    All are scaled to the same shorter side and keep their aspect ratio. Each is resized to the
    resolution of the sample in one antialiased step before the canvas is warped.

    Args:
        images: four of (H, W, 3) uint8 RGB, of any sizes.
        boxes_xyxy: (N, 4) of each, in its pixels.
        size_hw: size of the sample.
        config: probabilities of the color distortion and the flip.
        rng: source of all randomness.

    Returns:
        The sample (*size_hw, 3) uint8; the remaining boxes, (M, 4) cxcywh in fractions; and
        their (M,) indices into the joined `boxes_xyxy`.
    """
    sizes = np.array([image.shape[1::-1] for image in images], np.float64)  # (4, 2) width, height
    units = sizes / sizes.min(axis=1, keepdims=True)
    canvas = 2 * units.max(axis=0)
    linear = _draw_turn(rng) * (np.array(size_hw[::-1])[:, None] / canvas[:, None])  # (2, 2)
    shift = rng.uniform(-SHIFT, SHIFT, 2)

    density = np.linalg.norm(linear, axis=0)  # sample pixels per canvas unit
    drawn = np.maximum((units * density).round(), 1).astype(np.int64)  # (4, 2)
    cell = drawn.max(axis=0)
    corners = cell * np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    linear = linear * (canvas / (2 * cell))  # from the drawn canvas to the sample
    matrix = np.column_stack([linear, (0.5 + shift) * size_hw[::-1] - linear @ cell])  # (2, 3)

    sample = _warp(_draw_canvas(images, drawn, corners, cell), matrix, size_hw)
    sample = distort(sample, draw_distortion(config.photometric, rng))
    placed = [
        boxes.reshape(-1, 2, 2) * (drawn[at] / sizes[at]) + corners[at]
        for at, boxes in enumerate(boxes_xyxy)
    ]
    moved = _move_boxes(np.concatenate(placed), matrix).clip(0, [*size_hw[::-1]] * 2)
    return finish_sample(sample, moved.astype(np.float32), config.flip, rng)


def mixup(images: Tensor, targets: list[Target], share: float) -> tuple[Tensor, list[Target]]:
    """Blend each image of a batch with the previous one; the result has the boxes of both.

    Args:
        images: (B, 3, H, W) uint8.
        targets: targets of the B images.
        share: weight of the image itself, 0..1.
    """
    planes = images.numpy().reshape(-1, images.shape[-1])
    before = images.roll(1, 0).numpy().reshape(planes.shape)
    mixed = np.asarray(cv2.addWeighted(planes, share, before, 1 - share, 0), np.uint8)
    joined = [
        Target(
            torch.cat([own.boxes_cxcywh, other.boxes_cxcywh]),
            torch.cat([own.labels, other.labels]),
        )
        for own, other in zip(targets, targets[-1:] + targets[:-1], strict=True)
    ]
    return torch.from_numpy(mixed).reshape(images.shape), joined


def _draw_turn(rng: np.random.Generator) -> Matrix:
    """Draw a (2, 2) rotation and scale."""
    angle = np.deg2rad(rng.uniform(-TURN_DEGREES, TURN_DEGREES))
    cosine, sine = np.cos(angle), np.sin(angle)
    return rng.uniform(*SCALE) * np.array([[cosine, -sine], [sine, cosine]])


def _draw_canvas(images: list[Pixels], drawn: Ints, corners: Ints, cell: Ints) -> Pixels:
    """Place each image, resized, in the top left corner of its cell; the rest is black."""
    canvas = np.zeros((2 * cell[1], 2 * cell[0], 3), np.uint8)
    for image, (width, height), (left, top) in zip(
        images, drawn.tolist(), corners.tolist(), strict=True
    ):
        patch = resize_image(image, (height, width), antialias=True, exact=False)
        canvas[top : top + height, left : left + width] = patch
    return canvas


def _warp(canvas: Pixels, matrix: Matrix, size_hw: tuple[int, int]) -> Pixels:
    """Warp by a map of pixel edges; OpenCV counts from the center of the first pixel."""
    centred = matrix.copy()
    centred[:, 2] += matrix[:, :2].sum(axis=1) / 2 - 0.5
    return np.asarray(cv2.warpAffine(canvas, centred, size_hw[::-1]), np.uint8)


def _move_boxes(corners: Floats, matrix: Matrix) -> Floats:
    """(N, 2, 2) low and high corners to the (N, 4) xyxy bounds of the four warped corners."""
    x, y = corners[:, [0, 1, 0, 1], 0], corners[:, [0, 0, 1, 1], 1]  # (N, 4) each
    moved = np.stack([x, y], axis=2) @ matrix[:, :2].T + matrix[:, 2]  # (N, 4, 2)
    return np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1)

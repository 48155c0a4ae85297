"""Mosaic and mixup on squares, whose edges give the expected boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtdetr_cli.core.structures import Target
from rtdetr_cli.data import mosaic as dense
from rtdetr_cli.data.mosaic import mixup, mosaic
from rtdetr_cli.data.transforms import AugmentConfig

PLAIN = AugmentConfig(photometric=0, zoom_out=0, iou_crop=0, flip=0)
SIZES = [(120, 200), (300, 150), (97, 97), (60, 240)]
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def squares(rng):
    """Four black images with a rectangle of a colour of its own, and its box."""
    images, boxes = [], []
    for (height, width), colour in zip(SIZES, COLOURS, strict=True):
        left, top = rng.integers(0, width // 3), rng.integers(0, height // 3)
        right, bottom = rng.integers(width // 2, width), rng.integers(height // 2, height)
        image = np.zeros((height, width, 3), np.uint8)
        image[top:bottom, left:right] = colour
        images.append(image)
        boxes.append(np.array([[left, top, right, bottom]], np.float32))
    return images, boxes


@pytest.fixture
def still(monkeypatch):
    """No turn, no shift, no change of scale."""
    monkeypatch.setattr(dense, "TURN_DEGREES", 0.0)
    monkeypatch.setattr(dense, "SHIFT", 0.0)
    monkeypatch.setattr(dense, "SCALE", (1.0, 1.0))


def corners(boxes_cxcywh, size_hw):
    scale = np.array([*size_hw[::-1]] * 2)
    centre, extent = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:]
    return np.concatenate([centre - extent / 2, centre + extent / 2], axis=1) * scale


def seen(sample, colour):
    """Left, top, right, bottom of a colour, where more than half of it is there."""
    near = np.abs(sample.astype(int) - np.array(colour)).max(axis=2) < 128
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.usefixtures("still")
def test_four_images_lie_in_their_quarters_with_their_own_aspect(rng):
    images = [np.full((*size, 3), c, np.uint8) for size, c in zip(SIZES, COLOURS, strict=True)]
    boxes = [np.array([[0, 0, width, height]], np.float32) for height, width in SIZES]
    sample, found, kept = mosaic(images, boxes, (320, 640), PLAIN, rng)
    assert kept.tolist() == [0, 1, 2, 3]
    # Shorter sides 1; a cell is as wide as the widest, 4 (240x60), and as high as the highest, 2
    # (150x300): on 640x320 one unit is 80 pixels both ways.
    expected = [
        [0, 0, 80 * 200 / 120, 80],
        [320, 0, 400, 160],
        [0, 160, 80, 240],
        [320, 160, 640, 240],
    ]
    np.testing.assert_allclose(corners(found, (320, 640)), expected, atol=0.5)
    for box, colour in zip(corners(found, (320, 640)), COLOURS, strict=True):
        assert seen(sample, colour) == box.round().tolist()


@pytest.mark.usefixtures("still")
def test_boxes_are_right_to_the_pixel(squares, rng):
    for size_hw in ((256, 256), (320, 640), (480, 352)):
        sample, found, kept = mosaic(*squares, size_hw, PLAIN, rng)
        assert kept.tolist() == [0, 1, 2, 3]
        for box, colour in zip(corners(found, size_hw), COLOURS, strict=True):
            np.testing.assert_allclose(box, seen(sample, colour), atol=0.51)


@pytest.mark.parametrize("flip", [0, 1])
def test_boxes_follow_the_turned_canvas(squares, rng, flip):
    config = AugmentConfig(photometric=0, zoom_out=0, iou_crop=0, flip=flip)
    whole = 0
    for _ in range(60):
        sample, found, kept = mosaic(*squares, (320, 384), config, rng)
        for box, colour in zip(corners(found, (320, 384)), np.array(COLOURS)[kept], strict=True):
            if (box > 1).all() and (box[[0, 2]] < 383).all() and (box[[1, 3]] < 319).all():
                # A turned corner is sharp: its tip fills less than half of a pixel or two.
                apart = (np.array(seen(sample, colour)) - box) * [1, 1, -1, -1]
                assert apart.min() > -0.6
                assert apart.max() < 2.6
                whole += 1
    assert whole > 60


def test_turn_shift_and_scale_are_drawn_from_deims_ranges(rng):
    turns = np.array([dense._draw_turn(rng) for _ in range(2000)])
    scale = np.sqrt(np.linalg.det(turns))
    angle = np.rad2deg(np.arctan2(turns[:, 1, 0], turns[:, 0, 0]))
    for values, low, high in ((scale, 0.5, 1.5), (angle, -10, 10)):
        assert low <= values.min() < low + (high - low) * 0.01
        assert high >= values.max() > high - (high - low) * 0.01


def test_shift_is_at_most_a_tenth(rng, monkeypatch):
    monkeypatch.setattr(dense, "TURN_DEGREES", 0.0)
    monkeypatch.setattr(dense, "SCALE", (1.0, 1.0))
    images = [np.zeros((100, 100, 3), np.uint8)] * 4
    boxes = [np.array([[90, 90, 100, 100]], np.float32)] + [np.zeros((0, 4), np.float32)] * 3
    ends = []
    for _ in range(300):
        _, found, _ = mosaic(images, boxes, (200, 200), PLAIN, rng)
        ends.append(corners(found, (200, 200))[0, 2:] - 100)
    assert np.min(ends) >= -20
    assert np.max(ends) <= 20
    assert np.ptp(ends, axis=0).min() > 38


def test_what_leaves_the_sample_goes_with_its_label(squares, rng):
    numbers = set()
    for _ in range(60):
        sample, found, kept = mosaic(*squares, (128, 128), PLAIN, rng)
        assert sample.shape == (128, 128, 3)
        box = corners(found, (128, 128))
        assert box.min(initial=0) >= -1e-4
        assert box.max(initial=0) <= 128 + 1e-4
        assert (box[:, 2:] - box[:, :2] >= 1 - 1e-4).all()
        assert len(found) == len(kept)
        numbers.add(len(kept))
    assert {3, 4} <= numbers


def test_a_fine_pattern_is_averaged_and_not_aliased(rng):
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    sample, _, _ = mosaic([stripes] * 4, [np.zeros((0, 4), np.float32)] * 4, (96, 96), PLAIN, rng)
    middle = sample[40:56, 40:56]
    assert abs(float(middle.mean()) - 127.5) < 3
    assert np.ptp(middle) < 24


def test_one_pixel_images_survive(rng):
    pixel = np.full((1, 1, 3), 9, np.uint8)
    box = np.array([[0, 0, 1, 1]], np.float32)
    sample, found, _ = mosaic([pixel] * 4, [box] * 4, (64, 32), AugmentConfig(), rng)
    assert sample.shape == (64, 32, 3)
    assert np.isfinite(found).all()


def test_mixup_shows_both_images_and_keeps_both_targets():
    images = torch.tensor([10, 110, 210], dtype=torch.uint8).view(3, 1, 1, 1).repeat(1, 3, 4, 6)
    targets = [
        Target(torch.full((n, 4), n / 10), torch.full((n,), n, dtype=torch.int64))
        for n in (1, 0, 2)
    ]
    mixed, joined = mixup(images, targets, 0.45)
    assert mixed.dtype == torch.uint8
    assert mixed.shape == images.shape
    # 0.45 of itself and 0.55 of the image before it: 4.5 + 115.5, 49.5 + 5.5, 94.5 + 60.5
    assert mixed.amax((1, 2, 3)).tolist() == mixed.amin((1, 2, 3)).tolist() == [120, 55, 155]
    assert [target.labels.tolist() for target in joined] == [[1, 2, 2], [1], [2, 2]]
    assert joined[0].boxes_cxcywh[:, 0].tolist() == pytest.approx([0.1, 0.2, 0.2])

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2

from rtdetr_cli.data.transforms import (
    AugmentConfig,
    Distortion,
    augment,
    distort,
    draw_distortion,
    iou_crop_window,
    to_fractions,
    zoom_out_window,
)

NOTHING = AugmentConfig(photometric=0, zoom_out=0, iou_crop=0, flip=0)
BOXES = np.array([[10, 20, 60, 70], [100, 30, 120, 90], [5, 5, 150, 95]], np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def image(rng):
    # Smooth colours and noise together, as in a photograph; a few pure blacks, whites and grays.
    base = np.linspace(0, 255, 160)[None, :, None] * rng.random(3)
    pixels = (base + rng.normal(0, 30, (100, 160, 3))).clip(0, 255).astype(np.uint8)
    pixels[:4, :4], pixels[4:8, :4], pixels[8:12, :4] = 0, 255, 128
    return pixels


def levels_apart(ours, torchvision_planes):
    return np.abs(ours.astype(int) - torchvision_planes.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("factor", [0.875, 0.5, 1.3, 1.5])
@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("brightness", v2.functional.adjust_brightness),
        ("contrast", v2.functional.adjust_contrast),
        ("saturation", v2.functional.adjust_saturation),
    ],
)
def test_colour_operations_equal_torchvision_to_one_level(image, name, operation, factor):
    expected = operation(torch.from_numpy(image).permute(2, 0, 1), factor)
    assert levels_apart(distort(image, Distortion(**{name: factor})), expected).max() <= 1


@pytest.mark.parametrize("turn", [-0.05, -0.013, 0.05])
def test_hue_equals_torchvision_to_one_level(image, turn):
    expected = v2.functional.adjust_hue(torch.from_numpy(image).permute(2, 0, 1), turn)
    assert levels_apart(distort(image, Distortion(hue=turn)), expected).max() <= 1


def test_whole_distortion_follows_torchvisions_order(image):
    factors = {"brightness": 1.1, "contrast": 0.6, "saturation": 1.4, "hue": 0.04}
    for contrast_first in (True, False):
        params = {f"{name}_factor": factor for name, factor in factors.items()}
        params["contrast_before"] = contrast_first
        params["channel_permutation"] = torch.tensor([2, 0, 1])
        planes = tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1))
        expected = v2.RandomPhotometricDistort().transform(planes, params)
        ours = distort(
            image, Distortion(**factors, contrast_first=contrast_first, channels=(2, 0, 1))
        )
        apart = levels_apart(ours, expected)
        assert apart.max() <= 4  # one level per operation, amplified by those after it
        assert apart.mean() < 0.8


def test_distortion_is_drawn_from_torchvisions_ranges(rng):
    drawn = [draw_distortion(0.5, rng) for _ in range(2000)]
    ranges = {
        "brightness": (0.875, 1.125),
        "contrast": (0.5, 1.5),
        "saturation": (0.5, 1.5),
        "hue": (-0.05, 0.05),
    }
    for name, (low, high) in ranges.items():
        values = [value for one in drawn if (value := getattr(one, name)) is not None]
        assert len(values) / 2000 == pytest.approx(0.5, abs=0.05)
        assert low <= min(values) < low + (high - low) * 0.02
        assert high >= max(values) > high - (high - low) * 0.02
    assert len({one.channels for one in drawn}) == 7  # six orders and None


def test_nothing_happens_without_probability(image, rng):
    sample, boxes, kept = augment(image, BOXES, (100, 160), NOTHING, rng)
    assert (sample == image).all()
    np.testing.assert_allclose(boxes, to_fractions(BOXES, (100, 160)))
    assert kept.tolist() == [0, 1, 2]


def test_flip_mirrors_pixels_and_boxes(image, rng):
    config = AugmentConfig(photometric=0, zoom_out=0, iou_crop=0, flip=1)
    sample, boxes, _ = augment(image, BOXES, (100, 160), config, rng)
    assert (sample == image[:, ::-1]).all()
    np.testing.assert_allclose(boxes[0], [1 - 35 / 160, 0.45, 50 / 160, 0.5], rtol=1e-6)


def test_boxes_follow_the_pixels(rng):
    image = np.zeros((120, 200, 3), np.uint8)
    left, top, right, bottom = 80, 40, 140, 90
    image[top:bottom, left:right] = 255
    box = np.array([[left, top, right, bottom]], np.float32)
    config = AugmentConfig(photometric=0, zoom_out=0.7, iou_crop=0.8, flip=0.5)
    for _ in range(60):
        sample, boxes, kept = augment(image, box, (96, 128), config, rng)
        assert kept.tolist() == [0]
        bright = sample[..., 0] > 127
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        centre, extent = boxes[0, :2] * [128, 96], boxes[0, 2:] * [128, 96]
        # Half a level of brightness is at most half a pixel from the edge.
        np.testing.assert_allclose([*centre - extent / 2, *centre + extent / 2], seen, atol=0.51)


def test_zoom_out_keeps_the_image_inside_up_to_four_times(rng):
    windows = np.array([zoom_out_window((0, 0, 100, 50), rng) for _ in range(500)])
    left, top, right, bottom = windows.T
    assert (left <= 0).all()
    assert (top <= 0).all()
    assert (right >= 100).all()
    assert (bottom >= 50).all()
    ratio = (right - left) / 100
    assert 1 <= ratio.min() < 1.05
    assert 3.95 < ratio.max() <= 4
    np.testing.assert_allclose((bottom - top) / 50, ratio, atol=0.03)


def test_zoom_out_is_black_around_and_distorts_only_the_image(rng):
    image = np.full((50, 50, 3), 100, np.uint8)
    config = AugmentConfig(photometric=1, zoom_out=1, iou_crop=0, flip=0)
    sample, _, _ = augment(image, BOXES[:0], (64, 64), config, rng)
    values = np.unique(sample.reshape(-1, 3), axis=0)
    assert len(values) == 2
    assert values[0].tolist() == [0, 0, 0]


def crop_statistics(windows, kept):
    windows = np.array(windows, float)
    size = windows[:, 2:] - windows[:, :2]
    return [
        *(size / [160, 100]).mean(axis=0),
        (size == [160, 100]).all(axis=1).mean(),
        np.mean([len(one) for one in kept]),
    ]


def test_iou_crops_are_distributed_as_torchvisions(rng):
    ours = [iou_crop_window((0, 0, 160, 100), BOXES, rng) for _ in range(800)]
    torch.manual_seed(0)
    transform = v2.RandomIoUCrop()
    planes = tv_tensors.Image(torch.zeros(3, 100, 160, dtype=torch.uint8))
    boxes = tv_tensors.BoundingBoxes(BOXES, format="XYXY", canvas_size=(100, 160))
    theirs = []
    for _ in range(200):
        drawn = transform.make_params([planes, boxes])
        left, top = drawn.get("left", 0), drawn.get("top", 0)
        window = (left, top, left + drawn.get("width", 160), top + drawn.get("height", 100))
        inside = drawn.get("is_within_crop_area", torch.ones(3, dtype=torch.bool))
        theirs.append((window, inside.numpy()))
    # Mean width, mean height, share left as is, mean number of boxes kept: the tolerances are
    # four standard deviations with this many draws.
    expected = crop_statistics([one[0] for one in theirs], [np.flatnonzero(k) for _, k in theirs])
    found = crop_statistics([one[0] for one in ours], [np.flatnonzero(k) for _, k in ours])
    np.testing.assert_allclose(found[:3], expected[:3], atol=0.08)
    assert found[3] == pytest.approx(expected[3], abs=0.2)


def test_iou_crop_keeps_what_is_centred_in_it(rng):
    for _ in range(200):
        window, kept = iou_crop_window((-20, -10, 180, 110), BOXES, rng)
        left, top, right, bottom = window
        if window == (-20, -10, 180, 110):
            assert kept.all()
            continue
        width, height = right - left, bottom - top
        assert left >= -20
        assert bottom <= 110
        assert 0.5 <= width / height <= 2
        centre = (BOXES[:, :2] + BOXES[:, 2:]) / 2
        inside = ((centre > [left, top]) & (centre < [right, bottom])).all(axis=1)
        assert (kept == inside).all()
        assert kept.any()


def test_iou_crop_with_high_overlap_shows_nearly_the_box(rng, monkeypatch):
    monkeypatch.setattr("rtdetr_cli.data.transforms.CROP_OPTIONS", (0.7,))
    box = np.array([[20, 20, 100, 80]], np.float32)
    for _ in range(20):
        window, _ = iou_crop_window((0, 0, 160, 100), box, rng)
        assert box_iou(torch.tensor([window]).float(), torch.from_numpy(box)).item() >= 0.7


def test_image_without_boxes_is_not_cropped(rng):
    window, kept = iou_crop_window((0, 0, 160, 100), BOXES[:0], rng)
    assert window == (0, 0, 160, 100)
    assert kept.shape == (0,)


def test_one_pixel_survives_everything(rng):
    image = np.full((1, 1, 3), 7, np.uint8)
    config = AugmentConfig(photometric=0.5, zoom_out=1, iou_crop=1, flip=0.5)
    for _ in range(20):
        sample, boxes, _ = augment(
            image, np.array([[0, 0, 1, 1]], np.float32), (32, 64), config, rng
        )
        assert sample.shape == (32, 64, 3)
        assert np.isfinite(boxes).all()


def test_boxes_below_one_pixel_go_with_their_label(rng):
    boxes = np.array([[0, 0, 0.9, 50], [10, 10, 30, 30]], np.float32)
    _, left, kept = augment(np.zeros((100, 160, 3), np.uint8), boxes, (100, 160), NOTHING, rng)
    assert kept.tolist() == [1]
    assert left.shape == (1, 4)


def test_weak_keeps_only_the_flip():
    assert AugmentConfig(flip=0.3).weak() == AugmentConfig(0, 0, 0, 0.3)

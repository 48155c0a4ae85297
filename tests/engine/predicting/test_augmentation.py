"""Variants of an image and the mean of their boxes, on detections whose objects are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rtdetr_cli.config.model import ModelConfig, Preprocessing
from rtdetr_cli.core.detections import ALL_PAIRS, Detections
from rtdetr_cli.core.errors import ConfigError
from rtdetr_cli.core.structures import Batch, Target
from rtdetr_cli.engine.predicting.augmentation import (
    ALL_SIZES,
    ONE_SIZE,
    PLAIN,
    Variant,
    detect_in_variants,
    find_variants,
    further_sizes,
    fuse_variants,
    varied,
)
from rtdetr_cli.engine.predicting.views import View, whole

IMAGE = whole((100, 200), (320, 320))


def found(*rows):
    """Rows of x1, y1, x2, y2, score, class."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def fused(*of_variants):
    views = varied([IMAGE], ALL_SIZES)[: len(of_variants)]
    (view,), (result,) = fuse_variants(views, [found(*rows) for rows in of_variants])
    assert view == views[0]
    assert (np.diff(result.scores) <= 0).all()
    columns = (result.boxes_xyxy, result.scores, result.labels)
    return np.column_stack(columns).tolist()


def test_each_size_is_a_multiple_of_32_and_half_are_mirrored():
    """0.83 * 320 / 32 = 8.3 and 1.2 * 320 / 32 = 12."""
    views = varied([IMAGE], ALL_SIZES)
    assert [(view.size_hw, view.is_mirrored) for view in views] == [
        ((320, 320), False),
        ((320, 320), True),
        ((256, 256), True),
        ((384, 384), False),
    ]
    assert further_sizes((320, 320), ALL_SIZES) == [(256, 256), (384, 384)]
    assert further_sizes((320, 320), PLAIN) == []


def test_equal_variants_of_a_small_input_run_once():
    """0.83 * 32 and 1.2 * 32 are both 32."""
    views = varied([whole((9, 9), (32, 32))], ALL_SIZES)
    assert [view.is_mirrored for view in views] == [False, True]


def test_a_box_is_the_mean_weighted_by_score_and_the_score_the_mean_of_all_variants():
    """(0.6 * 10 + 0.2 * 14) / 0.8 = 11 and (0.6 + 0.2) / 2 = 0.4."""
    result = fused([(10, 10, 50, 50, 0.6, 1)], [(14, 10, 50, 50, 0.2, 1)])
    np.testing.assert_allclose(result, [[11, 10, 50, 50, 0.4, 1]], rtol=1e-6)


def test_an_object_of_one_variant_keeps_its_box_and_a_share_of_its_score():
    result = fused([(10, 10, 50, 50, 0.6, 1)], [], [], [])
    np.testing.assert_allclose(result, [[10, 10, 50, 50, 0.15, 1]], rtol=1e-6)


def test_the_order_is_that_of_the_mean_scores():
    sure, agreed = (10, 10, 50, 50, 0.8, 0), (100, 10, 150, 50, 0.5, 0)
    result = fused([sure, agreed], [agreed])
    assert [row[0] for row in result] == [100, 10]


def test_two_objects_of_one_variant_are_never_one():
    """Their boxes have an IoU of 0.74; in both variants the order of their scores differs."""
    left, right = (10, 10, 50, 50), (16, 10, 56, 50)
    result = fused([(*left, 0.9, 0), (*right, 0.8, 0)], [(*right, 0.85, 0), (*left, 0.7, 0)])
    np.testing.assert_allclose(result, [[*right, 0.825, 0], [*left, 0.8, 0]], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("other", [(10, 10, 50, 50, 0.6, 2), (60, 10, 99, 50, 0.6, 1)], ids=str)
def test_other_classes_and_places_are_other_objects(other):
    assert len(fused([(10, 10, 50, 50, 0.6, 1)], [other])) == 2


def test_without_augmentation_detections_are_returned_as_they_are():
    views, only = [IMAGE, View((0, 0, 50, 50), (320, 320))], [found(), found()]
    assert fuse_variants(views, only) == (views, only)


def test_tiles_are_fused_each_by_itself():
    views = varied([IMAGE, View((0, 0, 100, 100), (320, 320))], ONE_SIZE)
    box = (10, 10, 50, 50, 0.6, 0)
    kept, results = fuse_variants(views, [found(box), found(box), found(box), found()])
    assert [view.box for view in kept] == [(0, 0, 200, 100), (0, 0, 100, 100)]
    assert [one.scores.round(2).tolist() for one in results] == [
        [np.float32(0.6)],
        [np.float32(0.3)],
    ]


class Edges:
    """Finds the bright columns of each image, at any size."""

    def __init__(self, size_is_free: bool = True, network=None) -> None:
        self.size_is_free, self.network = size_is_free, network
        self.preprocessing, self.shapes = Preprocessing((64, 64)), []

    def detect(self, images, sizes_hw, max_det=300, selection=ALL_PAIRS):
        self.shapes.append(tuple(images.shape))
        rows = []
        for image, (height, width) in zip(images, sizes_hw, strict=True):
            bright = (image[0, 0] > 0.5).nonzero().flatten()
            scale = width / image.shape[-1]
            box = bright.min() * scale, 0, (bright.max() + 1) * scale, height
            rows.append(found((*map(float, box), 0.5, 0)))
        return rows


def batch_of(images, further):
    target = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    resized = [torch.nn.functional.interpolate(images, size) for size in further]
    return Batch(images, [target] * 2, [1, 2], [(64, 128), (64, 64)], ["a", "b"], 0.0, resized)


@pytest.mark.parametrize("variants", [PLAIN, ALL_SIZES])
def test_a_batch_of_val_has_each_variant_in_one_call(variants):
    images = torch.zeros(2, 3, 160, 160)
    images[..., :40] = 1
    detector = Edges()
    sizes = further_sizes((160, 160), variants)
    results = detect_in_variants(detector, batch_of(images, sizes), 300, variants)
    assert [one.boxes_xyxy.round().tolist() for one in results] == [
        [[0, 0, 32, 64]],
        [[0, 0, 16, 64]],
    ]
    assert [one.scores.tolist() for one in results] == [[0.5], [0.5]]
    shapes = [(2, 3, side, side) for side in (160, 160, 128, 192)]
    assert detector.shapes == shapes[: len(variants)]


def test_a_file_of_one_size_is_mirrored_only_and_says_so(capsys):
    assert find_variants(Edges(size_is_free=False), (64, 64), augment=True) == ONE_SIZE
    assert "takes 64x64 only: images are mirrored, not scaled" in capsys.readouterr().err
    assert find_variants(Edges(size_is_free=False), (64, 64), augment=False) == PLAIN
    assert find_variants(Edges(), (64, 64), augment=True) == ALL_SIZES


def test_the_largest_variant_must_fit_the_network(tiny_config: ModelConfig):
    detector = Edges(network=SimpleNamespace(config=tiny_config))
    assert Variant(1.2) in find_variants(detector, (640, 640), augment=True)
    with pytest.raises(ConfigError, match="augment=true: at 98304x98304 pixels"):
        find_variants(detector, (81920, 81920), augment=True)

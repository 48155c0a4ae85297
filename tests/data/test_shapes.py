from __future__ import annotations

import numpy as np
import pytest

from rtdetr_cli.config.dataset import ShapesConfig
from rtdetr_cli.data.shapes import NAMES, _make, _paint, _visible_box, draw_image, draw_shapes
from rtdetr_cli.data.splits import load_data, open_split

TINY = ShapesConfig(num_train=3, num_val=2, num_test=1, size=96, seed=5)


def test_same_seed_draws_the_same_image():
    images = [draw_image(np.random.default_rng(seed), 128) for seed in (1, 1, 2)]
    assert (images[0][0] == images[1][0]).all()
    assert images[0][1] == images[1][1]
    assert (images[0][0] != images[2][0]).any()


def test_a_ground_of_its_own_colour_does_not_hold_a_shape_up():
    shape = _make(2, 96, np.random.default_rng(0))
    for seed in range(20):
        canvas = np.full((96, 96, 3), (60, 60, 200), np.float32)
        _paint(canvas, shape, np.random.default_rng(seed))
        assert np.abs(canvas - (60, 60, 200)).max() > 50


def test_boxes_lie_inside_and_every_class_comes_up():
    seen = set()
    for seed in range(12):
        image, boxes = draw_image(np.random.default_rng(seed), 160)
        assert image.shape == (160, 160, 3)
        assert boxes
        for kind, (left, top, right, bottom) in boxes:
            assert 0 <= left < right - 3
            assert right <= 160
            assert 0 <= top < bottom - 3
            assert bottom <= 160
            seen.add(kind)
    assert seen == set(NAMES)


@pytest.mark.parametrize("kind", [-1, *NAMES])
def test_box_fits_the_drawn_pixels(kind):
    for seed in range(10):
        shape = _make(kind, 200, np.random.default_rng(seed))
        box = _visible_box(shape, shape.covered(np.zeros((200, 200), np.int64)))
        rows, columns = np.nonzero(shape.alpha > 0)
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        drawn = np.array(edges) + [shape.left, shape.top] * 2
        np.testing.assert_allclose(box, drawn, atol=1.3)  # a pixel touched at its rim


def test_written_once_as_a_yolo_data_set(tmp_path):
    config = draw_shapes(TINY, tmp_path)
    counts = [len(open_split(config, split)) for split in ("train", "val", "test")]
    assert counts == [3, 2, 1]
    image = config.path / "images/train/0000.jpg"
    written = image.stat().st_mtime_ns
    assert draw_shapes(TINY, tmp_path) == config
    assert image.stat().st_mtime_ns == written
    assert [path.name for path in tmp_path.iterdir()] == [config.path.name]
    assert open_split(load_data(config.path), "val").names == NAMES


def test_growing_one_split_leaves_the_others(tmp_path):
    small = draw_shapes(TINY, tmp_path)
    large = draw_shapes(ShapesConfig(num_train=4, num_val=2, num_test=1, size=96, seed=5), tmp_path)
    for name in ("images/val/0001.jpg", "images/train/0002.jpg", "labels/test/0000.txt"):
        assert (small.path / name).read_bytes() == (large.path / name).read_bytes()


def test_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("rtdetr_cli.data.shapes._label_line", fail)
    with pytest.raises(KeyboardInterrupt):
        draw_shapes(TINY, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_shipped_shapes_are_described():
    config = load_data("shapes.yaml")
    assert config.shapes == ShapesConfig(num_train=400, num_val=80, num_test=40, size=320, seed=0)

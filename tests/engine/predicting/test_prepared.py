"""The input of the network equals what the official preprocessing gives."""

import numpy as np
import pytest
import torch

from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.core.image import resize_image, to_tensor
from rtdetr_cli.engine.predicting.prepared import prepare
from rtdetr_cli.media.item import SourceImage

KEYS = PredictSettings(source="a.jpg")


@pytest.mark.parametrize("antialias", [True, False])
def test_planes_are_those_of_training_to_the_last_bit(antialias):
    rgb = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    prepared = prepare(SourceImage("a.jpg", rgb), Preprocessing((64, 32), antialias), KEYS)
    expected = to_tensor(resize_image(rgb, (64, 32), antialias))
    assert torch.equal(torch.from_numpy(prepared.planes[0]), expected)
    np.testing.assert_array_equal(prepared.bgr, rgb[..., ::-1])
    assert prepared.seconds > 0
    assert prepared.num_bytes() == 3 * 64 * 32 * 4 + 2 * rgb.nbytes


def test_an_unreadable_image_needs_no_memory():
    item = SourceImage("a.jpg", None, "a.jpg: bad")
    prepared = prepare(item, Preprocessing((64, 32), antialias=True), KEYS)
    assert prepared.item is item
    assert prepared.num_bytes() == 0


class Large:
    """The two halves of an image of 40 x 80, left black and right white."""

    read = 0

    def part(self, box):
        self.read += 1
        left, top, right, bottom = box
        pixels = np.zeros((40, 80, 3), np.uint8)
        pixels[:, 40:] = 255
        return pixels[top:bottom, left:right]


def test_parts_of_a_large_image_are_read_when_they_are_taken():
    keys = PredictSettings(source="a.tif", tiles="2x1", tile_overlap=0, save=False)
    black, large = np.broadcast_to(np.uint8(0), (40, 80, 3)), Large()
    item = SourceImage("a.tif", black, large=large)
    prepared = prepare(item, Preprocessing((32, 32), antialias=True), keys)
    assert prepared.bgr is black
    assert prepared.num_bytes() == 2 * 40 * 80 * 3  # more than any limit for one that is large
    assert not large.read
    assert [prepared.planes[view].mean() for view in range(3)] == pytest.approx([0.5, 0, 1])
    assert large.read == 3


@pytest.mark.parametrize("key", ["save", "save_txt", "save_crop"])
def test_a_large_image_is_not_drawn(key):
    keys = PredictSettings(source="a.tif", tiles="2x1", **{"save": False, key: True})
    item = SourceImage("a.tif", np.zeros((40, 80, 3), np.uint8), large=Large())
    prepared = prepare(item, Preprocessing((32, 32), antialias=True), keys)
    assert prepared.item.image is None
    assert "a.tif: is read by parts and not drawn; give save=false" in prepared.item.error

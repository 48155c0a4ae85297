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

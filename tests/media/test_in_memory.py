"""Images in memory become RGB pixels as their libraries mean them, or one sentence."""

import numpy as np
import pytest
import torch
from PIL import Image

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.media.in_memory import to_pixels

BLUE_BGR = np.full((4, 6, 3), (255, 0, 0), np.uint8)
BLUE_RGB = BLUE_BGR[..., ::-1]


def test_gray_and_alpha_arrays_are_taken_as_opencv_means_them():
    gray = np.arange(24, dtype=np.uint8).reshape(4, 6)
    for array in (gray, gray[..., None]):
        np.testing.assert_array_equal(to_pixels(array, "a"), np.stack([gray] * 3, axis=2))
    alpha = np.dstack([BLUE_BGR, gray])
    np.testing.assert_array_equal(to_pixels(alpha, "a"), BLUE_RGB)


def test_a_pillow_image_is_turned_upright():
    image = Image.fromarray(BLUE_RGB)
    image.getexif()[0x0112] = 6
    assert to_pixels(image, "a").shape == (6, 4, 3)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (np.zeros((4, 4, 3), np.float32), "an array of float32; expected uint8"),
        (np.zeros((3, 8, 8), np.uint8), r"shape \(3, 8, 8\); expected \(H, W, 3\) BGR"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (torch.full((3, 4, 4), 255.0), "must hold RGB in 0..1"),
        (torch.full((3, 4, 4), torch.nan), "must hold RGB in 0..1"),
        (torch.zeros(1, 4, 4), r"shape \(1, 4, 4\); expected \(B, 3, H, W\)"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "a tensor of torch.int64"),
        (torch.empty(3, 4, 4, device="meta"), "without values, or sparse"),
        (torch.zeros(3, 4, 4).to_sparse(), "without values, or sparse"),
        (Image.new("RGB", (0, 5)), "a Pillow image of 0x5 pixels"),
    ],
)
def test_what_is_no_image_says_what_was_expected(source, sentence):
    with pytest.raises(DataError, match=f"a.jpg: .*{sentence}"):
        to_pixels(source, "a.jpg")

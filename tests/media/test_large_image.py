"""TIFF files above the limit are read by parts, with pyvips if it is there, else a stand-in."""

from __future__ import annotations

import sys
import types
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.media import large_image
from rtdetr_cli.media.large_image import find_large
from rtdetr_cli.media.readers import read_file

PIXELS = np.random.default_rng(0).integers(0, 256, (1000, 1200, 3), np.uint8)


class StandIn:
    """What of pyvips.Image is used."""

    def __init__(self, pixels):
        self._pixels = pixels

    @classmethod
    def tiffload(cls, path, access):
        assert access == "random"
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        with Image.open(path) as image:
            pixels = np.asarray(image)
        Image.MAX_IMAGE_PIXELS = limit
        return cls(pixels)

    def crop(self, left, top, width, height):
        return StandIn(self._pixels[top : top + height, left : left + width])

    def shrink(self, across, down):
        height, width = (
            length // by for length, by in zip(self._pixels.shape, (down, across), strict=False)
        )
        cells = self._pixels[: height * down, : width * across].reshape(
            height, down, width, across, -1
        )
        return StandIn(cells.mean(axis=(1, 3)).round())

    def numpy(self):
        return self._pixels


@pytest.fixture(autouse=True)
def pyvips(monkeypatch):
    """A limit of one megapixel, and pyvips."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setenv("RTDETR_MAX_MEGAPIXELS", "1")
    if find_spec("pyvips") is None:
        fake = types.SimpleNamespace(Image=StandIn, Error=RuntimeError)
        monkeypatch.setitem(sys.modules, "pyvips", fake)
        monkeypatch.setattr(large_image, "find_spec", lambda name: name == "pyvips")


def write(path, pixels=PIXELS, **keys):
    Image.fromarray(pixels).save(path, **keys)
    return path


@pytest.mark.parametrize("compression", [None, "tiff_deflate", "tiff_lzw"])
def test_a_part_has_the_pixels_of_the_file(compression, tmp_path):
    large = find_large(write(tmp_path / "a.tif", compression=compression))
    assert large.size_hw == (1000, 1200)
    np.testing.assert_array_equal(large.part((100, 50, 900, 350)), PIXELS[50:350, 100:900])
    assert large.part((0, 0, 10, 10)).flags.c_contiguous


def test_gray_is_repeated_and_alpha_is_dropped(tmp_path):
    gray = find_large(write(tmp_path / "gray.tif", PIXELS[..., 0])).part((5, 6, 9, 8))
    np.testing.assert_array_equal(gray, np.repeat(PIXELS[6:8, 5:9, :1], 3, axis=2))
    alpha = np.dstack([PIXELS, PIXELS[..., 0]])
    part = find_large(write(tmp_path / "alpha.tif", alpha)).part((5, 6, 9, 8))
    np.testing.assert_array_equal(part, PIXELS[6:8, 5:9])


def test_a_large_part_is_the_mean_of_squares(tmp_path, monkeypatch):
    """1000 x 1200 pixels are 2.4 times 500,000, so that squares of 2 x 2 are averaged."""
    monkeypatch.setattr(large_image, "_MAX_PART_PIXELS", 500_000)
    part = find_large(write(tmp_path / "a.tif")).part((0, 0, 1200, 1000))
    means = PIXELS.reshape(500, 2, 600, 2, 3).mean(axis=(1, 3))
    assert part.shape == means.shape
    assert np.abs(part - means).max() <= 1  # rounded


def test_the_image_of_the_item_is_black_and_takes_no_memory(tmp_path):
    (found,) = read_file(write(tmp_path / "a.tif"), by_parts=True)
    assert found.large.size_hw == found.image.shape[:2] == (1000, 1200)
    assert found.image.base.nbytes == 1
    assert found.image[7, 7].tolist() == [0, 0, 0]


def test_other_files_are_read_as_usual(tmp_path):
    small = write(tmp_path / "small.tif", PIXELS[:90, :90])
    assert find_large(small) is None
    (found,) = read_file(small, by_parts=True)
    np.testing.assert_array_equal(found.image, PIXELS[:90, :90])
    for name in ("a.png", "a.jpg"):
        (found,) = read_file(write(tmp_path / name), by_parts=True)
        assert "more than 1 megapixels" in found.error
        assert "`rtdetr predict tiles=1000` reads TIFF of any size" in found.error
    (found,) = read_file(write(tmp_path / "a.tif"))
    assert "more than 1 megapixels" in found.error
    (tmp_path / "cut.tif").write_bytes(b"II*\0\xff")
    assert find_large(tmp_path / "cut.tif") is None


@pytest.mark.parametrize(
    ("pixels", "keys", "sentence"),
    [
        (PIXELS[..., 0].astype(np.uint16), {}, "upright 8-bit gray, RGB or RGBA images only"),
        (PIXELS, {"tiffinfo": {274: 6}}, "upright 8-bit"),
    ],
    ids=["16 bits", "turned"],
)
def test_what_is_not_read_by_parts_is_named(pixels, keys, sentence, tmp_path):
    path = write(tmp_path / "a.tif", pixels, **keys)
    (found,) = read_file(path, by_parts=True)
    assert found.image is None
    assert f"{path}: 1 megapixels; parts are read of {sentence}"[:60] in found.error


def test_strips_larger_than_memory_should_hold_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(large_image, "_MAX_PIECE_PIXELS", 10_000)
    with pytest.raises(DataError, match=r"in strips of \d+ rows; smaller strips or tiles"):
        find_large(write(tmp_path / "a.tif", compression="tiff_deflate"))
    monkeypatch.setattr(large_image, "_MAX_GIGAPIXELS", 0.001)
    with pytest.raises(DataError, match="parts are read of at most 1"):
        find_large(tmp_path / "a.tif")


def test_strips_need_free_space(tmp_path, monkeypatch):
    """1000 x 1200 pixels of 3 bytes are 3.6 MB."""
    free = types.SimpleNamespace(free=7_000_000)
    monkeypatch.setattr(large_image, "disk_usage", lambda folder: free)
    strips = write(tmp_path / "a.tif", compression="tiff_deflate")
    with pytest.raises(DataError, match=r"in strips need 0\.0 GB in .*, at most half of what is"):
        find_large(strips)
    free.free = 7_200_000
    assert find_large(strips)


def test_without_pyvips_one_sentence_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(large_image, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'rtdetr-cli\[large\]'"):
        find_large(write(tmp_path / "a.tif"))

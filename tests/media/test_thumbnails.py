"""Thumbnails: the image or the part around a small box, with boxes where they belong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.media.thumbnails import Outline, thumbnail

RED = (255, 0, 0)


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """1000 x 500 gray, with a white square of 10 pixels at (900, 400)."""
    pixels = np.full((500, 1000, 3), 100, np.uint8)
    pixels[400:410, 900:910] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    return tmp_path / "wide.png"


def red(pixels_bgr) -> np.ndarray:
    return np.argwhere((pixels_bgr == (0, 0, 255)).all(axis=2))


def test_a_box_is_drawn_where_it_is_in_the_smaller_image(wide):
    small = thumbnail(wide, 200)
    assert small.pixels.shape == (100, 200, 3)
    drawn = small.drawn([Outline((100, 100, 500, 400), "", RED)])
    rows, columns = red(drawn).T
    # A fifth of the size: 20..100 wide, 20..80 high, the last pixel inside.
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (20, 99, 20, 79)
    assert (small.pixels == thumbnail(wide, 200).pixels).all()


def test_a_box_that_would_be_too_small_is_shown_in_a_cutout(wide):
    box = (900, 400, 910, 410)
    part = thumbnail(wide, 200, focus=box)
    assert part.scale > 2
    drawn = part.drawn([Outline(box, "", RED)])
    rows, columns = red(drawn).T
    width = 10 * part.scale
    assert columns.max() - columns.min() + 1 == pytest.approx(width, abs=2)
    inside = part.pixels[rows.min() + 4 : rows.max() - 4, columns.min() + 4 : columns.max() - 4]
    assert inside.min() > 240  # the white square, not the gray beside it


@pytest.mark.parametrize("box", [(0, 0, 3, 3), (997, 497, 1000, 500), (-50, -50, -40, -40)])
def test_a_cutout_stays_within_the_image(wide, box):
    part = thumbnail(wide, 100, focus=box)
    assert max(part.pixels.shape[:2]) == 100
    left, top = part.origin
    assert 0 <= left <= 1000
    assert 0 <= top <= 500


def test_a_large_box_needs_no_cutout(wide):
    assert thumbnail(wide, 200, focus=(0, 0, 300, 300)).pixels.shape == (100, 200, 3)


def test_a_small_image_is_enlarged_at_most_four_times(tmp_path):
    Image.new("RGB", (10, 20)).save(tmp_path / "tiny.png")
    assert thumbnail(tmp_path / "tiny.png", 400).pixels.shape == (80, 40, 3)


def test_boxes_that_are_not_finite_or_outside_are_left_out(wide):
    small = thumbnail(wide, 200)
    nan, inf = float("nan"), float("inf")
    boxes = [(nan, 0, 10, 10), (0, 0, inf, 10), (1200, 0, 1300, 10), (-20, -20, -10, -10)]
    assert (small.drawn([Outline(box, "x", RED) for box in boxes]) == small.pixels).all()


def test_a_caption_is_one_short_line(wide):
    small = thumbnail(wide, 400)
    outline = Outline((100, 100, 900, 400), "a\nb\u202e" + "long " * 1000, RED)
    assert small.drawn([outline]).shape == small.pixels.shape


def test_context_is_drawn_below_without_dark_edges(wide):
    small = thumbnail(wide, 600)
    box = (100, 100, 900, 400)
    both = small.drawn([Outline(box, "", (0, 0, 255), is_thin=True), Outline(box, "", RED)])
    assert len(red(both)) == len(red(small.drawn([Outline(box, "", RED)])))
    thin = small.drawn([Outline(box, "", RED, is_thin=True)])
    assert thin.min() == 0  # the blue and green of the red line
    assert (thin.max(axis=2) >= 100).all()  # no edge darker than the ground
    assert (both.max(axis=2) < 100).any()


def test_an_image_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="cannot be read as an image"):
        thumbnail(tmp_path / "a.jpg", 100)

"""Boxes and labels are where they should be, on images of any size."""

import numpy as np
import pytest
import torch

from rtdetr_cli.core.boxes import Boxes
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.results import DrawStyle
from rtdetr_cli.media.draw import (
    Mark,
    _fitting_text,
    _marks,
    _place,
    _text_size,
    class_color,
    draw_boxes,
    ink,
)
from rtdetr_cli.media.fonts import load_font

NAMES = {0: "person", 1: "рюкзак"}


def draw(size_hw, rows, **style):
    image = np.full((*size_hw, 3), 40, np.uint8)
    boxes = Boxes(torch.tensor(rows, dtype=torch.float32).reshape(-1, 6), size_hw)
    return image, draw_boxes(image, boxes, NAMES, DrawStyle(**style))


def brighter(before, after):
    """The pixels of frames; their edges are darker than the ground."""
    return (after > before).any(axis=2)


def test_a_frame_covers_the_first_and_the_last_pixel_of_its_box():
    before, after = draw((60, 80), [[10, 20, 50, 40, 0.9, 0]], labels=False, line_width=1)
    rows, columns = np.nonzero(brighter(before, after))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 39, 10, 49)
    assert len(rows) == 2 * 40 + 2 * 18  # nothing but the frame
    assert (before == 40).all()


def test_tracks_have_their_id_in_the_label_and_its_color():
    rows = torch.tensor([[0, 0, 9, 9, 3, 0.87, 0], [20, 20, 40, 40, 12, 0.5, 0]])
    marks = _marks(Boxes(rows, (60, 80)), NAMES, DrawStyle())
    assert [mark.text for mark in marks] == ["id:3 person 0.87", "id:12 person 0.50"]
    assert [mark.colour for mark in marks] == [class_color(3), class_color(12)]
    (mark, _) = _marks(Boxes(rows, (60, 80)), NAMES, DrawStyle(conf=False))
    assert mark.text == "id:3 person"


@pytest.mark.parametrize("width", [1, 2, 3, 6])
def test_a_frame_shows_on_white_and_on_black(width):
    """Its dark edges on white, its color on black: a step of at least 100 of 255 levels."""
    row = [[20, 20, 60, 60, 0.9, 0]]
    for ground in (0, 255):
        for label in range(60):
            boxes = Boxes(torch.tensor([[*row[0][:5], label]]), (80, 80))
            image = np.full((80, 80, 3), ground, np.uint8)
            style = DrawStyle(labels=False, line_width=width)
            drawn = draw_boxes(image, boxes, NAMES, style)
            luma = drawn[40, :40] @ np.array([0.114, 0.587, 0.299])  # a line across the left side
            assert np.abs(luma - ground).max() > 100, (ground, label)
            assert (drawn[40, 20, ::-1] == class_color(label)).all()


def test_edges_do_not_fill_a_small_box():
    _, after = draw((60, 80), [[10, 20, 16, 26, 0.9, 0]], labels=False, line_width=2)
    assert (after[22:24, 12:14] == 40).all()


def test_frames_are_cut_at_the_border():
    before, after = draw((60, 80), [[-30, -5, 200, 90, 0.9, 0]], labels=False, line_width=1)
    drawn = brighter(before, after)
    assert drawn[0].all()
    assert drawn[:, -1].all()
    assert not drawn[1:-1, 1:-1].any()


def test_labels_and_frames_can_be_left_out():
    row = [[40, 60, 160, 120, 0.9, 1]]
    before, frame = draw((200, 300), row, labels=False)
    _, label = draw((200, 300), row, boxes=False)
    _, name = draw((200, 300), row, boxes=False, conf=False)
    _, nothing = draw((200, 300), row, boxes=False, labels=False)

    def area(image):
        return int((image != before).any(axis=2).sum())

    assert area(nothing) == 0 < area(name) < area(label)
    assert not (frame[:59] != before[:59]).any()  # row 60 less an edge
    assert (label[45:60, 40:60] != before[45:60, 40:60]).any()  # above the frame


def test_classes_and_instances_have_colours_of_their_own():
    rows = [[10, 10, 30, 30, 0.9, 0], [40, 10, 60, 30, 0.8, 1], [10, 40, 30, 60, 0.7, 0]]
    _, image = draw((80, 80), rows, labels=False)
    assert (image[10, 20] == image[40, 20]).all()
    assert (image[10, 20] != image[10, 50]).any()
    _, image = draw((80, 80), rows, labels=False, color_mode="instance")
    assert (image[10, 20] != image[40, 20]).any()


@pytest.mark.parametrize("size_hw", [(1, 1), (1000, 3), (9, 4000), (33, 21)])
def test_odd_sizes_are_drawn_on(size_hw):
    height, width = size_hw
    before, after = draw(size_hw, [[0, 0, width, height, 0.9, 0]])
    assert after.shape == before.shape
    assert (after[0, 0] != before[0, 0]).any()


def test_degenerate_boxes_do_no_harm():
    rows = [[5, 5, 5, 5, 0.9, 0], [30, 30, 10, 10, 0.9, 0], [float("nan")] * 4 + [0.9, 0]]
    before, after = draw((60, 80), [*rows, [1e9, 1e9, 2e9, 2e9, 0.9, 7]])
    assert after.shape == before.shape


def place(frame, label_wh, size_wh, taken=(), others=()):
    frames = np.array([frame, *others])
    return _place(frame, label_wh, size_wh, np.array(taken).reshape(-1, 4), frames)


def test_a_label_looks_for_a_free_place_above_inside_then_below():
    frame, label, image_wh = (50, 40, 149, 89), (40, 10), (200, 100)
    above, inside = (50, 30, 89, 39), (50, 40, 89, 49)
    assert place(frame, label, image_wh) == above
    assert place(frame, label, image_wh, [above]) == (110, 30, 149, 39)
    assert place(frame, label, image_wh, [(80, 30, 119, 39)])[:2] == (50, 40)
    assert place(frame, label, image_wh, [(0, 30, 199, 39)]) == inside
    assert place(frame, label, image_wh, [(0, 30, 199, 49)]) == (50, 90, 89, 99)
    assert place(frame, label, image_wh, [(0, 30, 199, 49), (0, 90, 199, 99)]) == (50, 80, 89, 89)
    assert place(frame, label, image_wh, [(0, 0, 199, 99)]) is None
    assert place((0, 0, 20, 50), label, image_wh) == (0, 0, 39, 9)  # no room above
    assert place((180, 40, 199, 89), label, image_wh)[2] == 199  # stays in the image


def test_a_label_moves_along_the_side_of_its_box():
    """Between two labels at the corners there is room for a third: a sixth of 160 further each."""
    frame, corners = (50, 40, 249, 89), [(50, 30, 79, 39), (220, 30, 249, 39)]
    assert place(frame, (40, 10), (300, 100), corners) == (103, 30, 142, 39)


def test_a_label_does_not_hide_the_box_of_a_neighbour():
    frame, small = (50, 40, 149, 89), (55, 31, 65, 38)
    assert place(frame, (40, 10), (200, 100), others=[small]) == (110, 30, 149, 39)
    everywhere = [(x, y, x + 3, y + 3) for x in range(0, 200, 5) for y in range(0, 100, 5)]
    assert place(frame, (40, 10), (200, 100), others=everywhere) == (50, 30, 89, 39)


def test_labels_do_not_cover_each_other_and_the_best_are_kept():
    """Equal boxes, the best first: with fifty the labels of the first ones are where they were."""
    image = np.full((200, 300, 3), 40, np.uint8)
    rows = [[100, 60, 240, 140, 0.99 - row / 100, 0] for row in range(50)]
    boxes = Boxes(torch.tensor(rows), (200, 300))
    style = DrawStyle(boxes=False)
    few, many = (draw_boxes(image, boxes[:n], NAMES, style) for n in (3, 50))
    labelled = (few != image).any(axis=2)
    assert (few[labelled] == many[labelled]).all()
    assert (many != few).any()


@pytest.mark.parametrize("size_hw", [(85, 64), (64, 64), (480, 640), (540, 12150)])
def test_labels_cover_at_most_a_third_of_the_image(size_hw):
    height, width = size_hw
    rng = np.random.default_rng(0)
    corners = np.sort(rng.random((300, 2, 2)), axis=1).reshape(-1, 4) * [
        width,
        height,
        width,
        height,
    ]
    rows = np.column_stack([corners, np.full(300, 0.9), np.zeros(300)])
    before, after = draw(size_hw, rows.tolist(), boxes=False)
    share = (before != after).any(axis=2).mean()
    assert 0.1 < share < 1 / 3


def test_text_grows_with_the_image_and_shrinks_in_a_crowd():
    """A 45th of the root of the area, at most a 25th of the short side; DejaVu's letters."""
    few, many = ([Mark((0, 0, 9, 9), "person 0.52", (9, 9, 9))] * n for n in (1, 80))
    sizes = {(64, 85): 11, (640, 480): 12, (1280, 720): 21, (3840, 2160): 64, (12000, 800): 32}
    assert {size: _text_size(size, few) for size in sizes} == sizes
    assert 15 <= _text_size((1280, 720), many) < 21
    assert _text_size((640, 480), many * 10) == 11


def test_a_label_that_is_too_wide_is_shortened():
    font, mark = load_font(None, 11), Mark((0, 0, 9, 9), "person 0.52", (9, 9, 9), short="person")
    assert _fitting_text(mark, font, 200) == "person 0.52"
    assert _fitting_text(mark, font, font.getlength("person 0.5")) == "person"
    assert _fitting_text(mark, font, font.getlength("perso")) == "per…"
    assert _fitting_text(mark, font, 10) == ""
    assert _fitting_text(mark._replace(short=""), font, font.getlength("person 0…")) == "person 0…"
    assert len(_fitting_text(mark._replace(text="x" * 10**6), font, 10**6)) == 6  # the short one


def test_text_has_the_contrast_of_wcag_on_every_color():
    """WCAG 2.2 level AA: 4.5 (success criterion 1.4.3), by its formula for 8-bit sRGB."""

    def luminance(color):
        values = np.asarray(color) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722)

    for index in range(1000):
        color = class_color(index)
        low, high = sorted((luminance(color), luminance(ink(color))))
        assert (high + 0.05) / (low + 0.05) >= 4.5, index


def test_a_font_that_is_none_is_named(tmp_path):
    (tmp_path / "x.ttf").write_text("words")
    with pytest.raises(UsageError, match=r"x\.ttf cannot be read as a TrueType file"):
        draw((60, 80), [[1, 20, 40, 50, 0.9, 0]], font=str(tmp_path / "x.ttf"))


@pytest.mark.parametrize("name", ["\x1b[31m\0", "a\nb", "\udcff", "", "x" * 10_000])
def test_any_class_name_can_be_drawn(name):
    image = np.full((60, 80, 3), 40, np.uint8)
    boxes = Boxes(torch.tensor([[10, 20, 50, 40, 0.9, 0]]), (60, 80))
    assert draw_boxes(image, boxes, {0: name}, DrawStyle()).shape == (60, 80, 3)

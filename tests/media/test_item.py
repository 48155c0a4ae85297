"""Frames of a clip share the clip itself, so that two readings of a file are not mixed up."""

from rtdetr_cli.media.item import Clip, SourceImage


def test_a_clip_is_compared_by_identity():
    first, second = Clip("a.mp4", 25.0, 10), Clip("a.mp4", 25.0, 10)
    assert first != second
    assert len({first, second, first}) == 2


def test_a_still_image_has_no_frame():
    image = SourceImage("a.jpg", None, "damaged")
    assert (image.frame, image.time_s, image.clip) == (None, None, None)

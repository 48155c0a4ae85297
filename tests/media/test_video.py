"""Every frame of a video, upright and at its time; damage is named and keeps the frames before."""

import random

import numpy as np
import pytest

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.image import MAX_MEGAPIXELS
from rtdetr_cli.media.video import open_video, read_video


def levels(found):
    return [one.image[24, 48].tolist() for one in found]


@pytest.mark.parametrize(
    ("suffix", "fourcc"),
    [("mp4", "mp4v"), ("avi", "MJPG"), ("mkv", "MJPG"), ("mov", "mp4v"), ("webm", "VP80")],
)
def test_every_frame_comes_once_with_its_number_and_time(
    tmp_path, write_video, edit_video, reader, suffix, fourcc
):
    path = write_video(tmp_path / f"a.{suffix}", frames=10, fps=20, fourcc=fourcc)
    found = list(read_video(path))
    assert [one.error for one in found] == [""] * 10
    assert [one.frame for one in found] == list(range(1, 11))
    times = [one.time_s for one in found]
    np.testing.assert_allclose(times, np.arange(10) / 20, atol=2e-3)  # WebM counts milliseconds
    for number, level in enumerate(levels(found), start=1):
        assert level == pytest.approx([edit_video["level"](number)] * 3, abs=8)
    assert {one.path for one in found} == {str(path)}
    assert found[0].clip is found[-1].clip
    assert (found[0].clip.fps, found[0].clip.total) == (pytest.approx(20, rel=0.01), 10)


def test_a_stride_keeps_the_numbers_and_times_of_the_file(tmp_path, write_video, reader):
    path = write_video(tmp_path / "a.mp4", frames=10, fps=20)
    found = list(read_video(path, stride=4))
    assert [(one.frame, round(one.time_s, 3)) for one in found] == [(1, 0), (5, 0.2), (9, 0.4)]
    assert (found[0].clip.fps, found[0].clip.total) == (5, 3)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_video_is_upright(tmp_path, write_video, edit_video, reader, quarters):
    path = edit_video["turn"](write_video(tmp_path / "a.mp4", frames=5), quarters)
    upright = np.zeros((48, 64), np.uint8)
    upright[:, 32:] = edit_video["level"](4)
    expected = np.rot90(upright, -quarters)  # clockwise, as in the file
    image = list(read_video(path))[3].image
    assert image.shape[:2] == expected.shape
    near_edge = np.abs(image[..., 0].astype(int) - expected) > 30
    assert near_edge.mean() < 0.05


def test_times_of_a_variable_frame_rate_are_those_of_the_file(
    tmp_path, write_video, edit_video, reader
):
    path = write_video(tmp_path / "a.mp4", frames=4, fps=25)
    # OpenCV writes 12800 ticks per second at 25 frames per second: 512 each
    edit_video["retime"](path, [512, 5120, 256, 512])
    times = [one.time_s for one in read_video(path)]
    np.testing.assert_allclose(times, [0, 0.04, 0.44, 0.46], atol=1e-3)


def test_frames_before_a_missing_end_are_kept_and_the_file_is_named(tmp_path, write_video, reader):
    path = write_video(tmp_path / "a.avi", frames=60, fourcc="MJPG")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    *good, error = read_video(path)
    assert 5 <= len(good) <= 55
    assert all(one.image is not None for one in good)
    assert f"{path}: the video is damaged (its last 0.0" in error.error
    assert error.error.endswith(f"{len(good)} frames were read")
    assert error.clip is good[0].clip


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the file is empty"),
        (b"<html>", "cannot be read as a video"),
        (b"#EXTM3U\nfile:///etc/passwd\n", "is a list of other files, not a video"),
        (b"ffconcat version 1.0\nfile '/etc/hosts'\n", "is a list of other files"),
        (b"\0\0\0\x10ftypisom\0\0\0\0", "cannot be read as a video"),
    ],
)
def test_what_is_no_video_is_one_sentence(tmp_path, reader, content, sentence):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    (found,) = read_video(path)
    assert (found.image, found.clip) == (None, None)
    assert sentence in found.error
    (missing,) = read_video(tmp_path / "b.mp4")
    assert missing.error == f"{tmp_path}/b.mp4: no such video"


def test_frames_above_the_limit_of_pixels_are_refused(tmp_path, write_video, reader, monkeypatch):
    path = write_video(tmp_path / "a.mp4", size_wh=(1280, 960))
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 10**8)  # restored after the test
    monkeypatch.setenv(MAX_MEGAPIXELS, "1")
    with pytest.raises(DataError, match="frames of 1280x960 have more than 1 megapixels"):
        open_video(path)


def test_damaged_videos_never_crash_and_print_nothing(tmp_path, write_video, reader, capfd):
    """Twelve seeded damages: bytes exchanged, removed, cut; each gives frames or an error."""
    whole = write_video(tmp_path / "a.mp4", frames=12).read_bytes()
    rng = random.Random(0)
    for case in range(12):
        content = bytearray(whole)
        for _ in range(rng.choice((1, 20, 200))):
            content[rng.randrange(len(content))] = rng.randrange(256)
        if case % 3 == 0:
            del content[rng.randrange(len(content)) :]
        path = tmp_path / "b.mp4"
        path.write_bytes(content)
        found = list(read_video(path))
        assert found
        assert all(one.error for one in found if one.image is None)
        assert sum(one.image is None for one in found) <= 1
    assert capfd.readouterr() == ("", "")

"""A video that ends before its header says so is named, whichever reader; a sound one never is."""

import struct

import pytest

from rtdetr_cli.media.video import read_video
from rtdetr_cli.media.video_length import Declared, Reached, missing_end


def read(path, stride=1):
    """Number of frames, and the error if there is one."""
    found = list(read_video(path, stride))
    return sum(one.image is not None for one in found), "".join(one.error for one in found)


@pytest.mark.parametrize(("suffix", "fourcc"), [("avi", "MJPG"), ("mkv", "MJPG"), ("mp4", "mp4v")])
def test_zeros_in_the_file_do_not_shorten_a_video_without_a_word(
    tmp_path, write_video, reader, suffix, fourcc
):
    path = write_video(tmp_path / f"a.{suffix}", frames=60, fourcc=fourcc)
    content = bytearray(path.read_bytes())
    frames = slice(0, len(content))
    if suffix == "mp4":  # its tables are at the end
        frames = slice(content.index(b"mdat"), content.index(b"moov"))
    half, end = (frames.start * (4 - n) // 4 + frames.stop * n // 4 for n in (2, 3))
    content[half:end] = bytes(end - half)
    path.write_bytes(content)
    count, error = read(path)
    assert 0 < count < 59
    assert f"{path}: the video is damaged" in error
    assert error.endswith(f"; {count} frames were read")


def test_an_avi_file_with_fewer_frames_than_its_header_declares(tmp_path, write_video, reader):
    path = write_video(tmp_path / "a.avi", frames=10, fourcc="MJPG")
    content = bytearray(path.read_bytes())
    at = content.index(b"strh") + 8 + 32  # dwLength of the stream header
    assert struct.unpack_from("<I", content, at) == (10,)
    struct.pack_into("<I", content, at, 40)
    path.write_bytes(content)
    _, error = read(path)
    assert "(its header declares 40 frames, it ends after 10); 10 frames were read" in error
    _, error = read(path, stride=5)
    assert "(its header declares 40 frames, it ends after 10); 2 frames were read" in error


def test_a_video_that_an_edit_list_shortens_is_sound(tmp_path, write_video, reader):
    """As phones trim: the frames before the new start are in the file but are not shown."""
    path = write_video(tmp_path / "a.mp4", frames=50, fps=25)
    content = bytearray(path.read_bytes())
    elst, tkhd, mvhd = (content.index(name) + 4 for name in (b"elst", b"tkhd", b"mvhd"))
    (scale,) = struct.unpack_from(">I", content, mvhd + 12)
    struct.pack_into(">I", content, tkhd + 20, scale)  # one second of two is shown
    # OpenCV writes 12800 ticks a second
    struct.pack_into(">II", content, elst + 8, scale, 12800)
    path.write_bytes(content)
    count, error = read(path)
    assert 24 <= count <= 26
    assert error == ""


@pytest.mark.parametrize("seconds", [3, 0])
def test_sound_that_is_longer_than_the_video_is_no_damage(tmp_path, seconds, monkeypatch):
    av = pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")
    from fractions import Fraction

    import numpy as np

    from rtdetr_cli.media import video

    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        pictures, sound = file.add_stream("mpeg4", rate=25), file.add_stream("aac", rate=48000)
        pictures.width, pictures.height = 64, 48
        for _ in range(25):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))
            file.mux(pictures.encode(frame))
        file.mux(pictures.encode(None))
        for number in range(seconds * 48):
            wave = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), "fltp", "mono")
            wave.sample_rate, wave.pts, wave.time_base = 48000, 1000 * number, Fraction(1, 48000)
            file.mux(sound.encode(wave))
        file.mux(sound.encode(None))
    for has_av in (True, False):
        monkeypatch.setattr(video, "find_spec", lambda name, has_av=has_av: has_av or None)
        assert read(path) == (25, "")


def test_the_last_frame_may_be_shown_as_long_as_the_longest_other_one():
    reached = Reached(fps=25)
    for seconds in (0, 0.04, 2.04):  # a screen recording with a pause of two seconds
        reached.add(seconds)
    assert reached.missing(Declared(end_s=4.0)) == ""
    assert reached.missing(Declared(end_s=5.5)) == (
        "its header declares 5.50 s, it ends after 2.08 s"
    )
    assert reached.missing(Declared(frames=4)) == ""
    assert "declares 5 frames, it ends after 3" in reached.missing(Declared(frames=5))
    assert reached.missing(Declared()) == ""


def test_missing_ends_are_found_from_the_lengths_of_parts(tmp_path, write_video):
    for suffix, fourcc in (
        ("mp4", "mp4v"),
        ("mov", "mp4v"),
        ("avi", "MJPG"),
        ("mkv", "MJPG"),
        ("webm", "VP80"),
    ):
        path = write_video(tmp_path / f"a.{suffix}", fourcc=fourcc)
        assert missing_end(path) == ""
        content = path.read_bytes()
        path.write_bytes(content + b"\0" * 100)
        assert missing_end(path) == ""
        path.write_bytes(content[:-100])
        assert missing_end(path) == "its last 0.00 MB are missing"

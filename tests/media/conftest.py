"""Small videos: written by OpenCV, then turned or retimed by editing the MP4 itself."""

import struct

import cv2
import numpy as np
import pytest

from rtdetr_cli.media import video
from rtdetr_cli.media.video import quiet_opencv


@pytest.fixture(params=["opencv", "av"])
def reader(request, monkeypatch):
    """Runs a test with each reader of videos."""
    if request.param == "av":
        pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")
    monkeypatch.setattr(video, "find_spec", lambda name: request.param == "av" or None)
    return request.param


def gray_level(number):
    """Gray of frame `number`, from 1: far enough apart to survive the codec."""
    return 20 * number % 240


@pytest.fixture
def write_video():
    """Writes a video of 64x48 (width x height) whose frame n is gray_level(n), left half black."""

    def write(path, frames=10, fps=25, fourcc="mp4v", size_wh=(64, 48)):
        quiet_opencv()  # FFmpeg reads its log level once
        path.parent.mkdir(parents=True, exist_ok=True)
        code = cv2.VideoWriter.fourcc(*fourcc)
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, fps, size_wh)
        assert writer.isOpened()
        for number in range(1, frames + 1):
            image = np.full((size_wh[1], size_wh[0], 3), gray_level(number), np.uint8)
            image[:, : size_wh[0] // 2] = 0
            writer.write(image)
        writer.release()
        return path

    return write


def turn(path, quarters):
    """Set the display matrix of an MP4, so that players turn it clockwise."""
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters]
    matrix = [cos, sin, 0, -sin, cos, 0, 0, 0, 1 << 14]
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # ISO/IEC 14496-12, 8.3.2: version 0
    struct.pack_into(">9i", content, at, *(value << 16 for value in matrix))
    path.write_bytes(content)
    return path


def retime(path, durations):
    """Give each frame of an MP4 its own duration, in ticks of the track; `moov` is at the end."""
    content = path.read_bytes()
    at = content.index(b"stts") - 4
    (length,) = struct.unpack_from(">I", content, at)
    table = b"".join(struct.pack(">II", 1, ticks) for ticks in durations)
    box = struct.pack(">I4sII", 16 + len(table), b"stts", 0, len(durations)) + table
    changed = bytearray(content[:at] + box + content[at + length :])
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        start = changed.index(name) - 4
        (old,) = struct.unpack_from(">I", changed, start)
        struct.pack_into(">I", changed, start, old + len(box) - length)
    path.write_bytes(changed.replace(b"edts", b"free"))  # the edit list would cut what is longer
    return path


@pytest.fixture
def edit_video():
    """The two edits by name."""
    return {"turn": turn, "retime": retime, "level": gray_level}

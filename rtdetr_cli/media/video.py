"""Read the frames of video files: with PyAV if it is installed, else with OpenCV.

Both decode with FFmpeg and give the same pixels. PyAV also reports frames that are damaged; OpenCV
conceals them. Both find a file whose end is missing (video_length.py).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.files import reason_of, refuse_special
from rtdetr_cli.core.image import MAX_MEGAPIXELS, Pixels, max_pixels
from rtdetr_cli.core.opencv import cv2
from rtdetr_cli.media.item import Clip, SourceImage
from rtdetr_cli.media.video_length import (
    Reached,
    declared_by_av,
    declared_by_opencv,
    missing_end,
)

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"}
    | {".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
)
"""Lower-case suffixes that count as videos."""
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"[playlist]", b"<?xml", b"<MPD")
"""Starts of files that name other files or addresses, which FFmpeg would open."""
_DEFAULT_FPS = 25.0


class Decoder(Protocol):
    """An open video.

    Attributes:
        fps: mean frames per second.
        total: number of frames; None if the header does not have it.
        damage: what was found during iteration, empty for a sound file.
    """

    fps: float
    total: int | None
    damage: str

    def frames(self, stride: int) -> Iterator[tuple[int, float, Pixels]]:
        """Yield the number from 1, the seconds and the RGB pixels of every stride-th frame."""

    def close(self) -> None:
        """Close the file."""


def read_video(path: Path, stride: int = 1) -> Iterator[SourceImage]:
    """Yield every `stride`-th frame of a video, then an error if the file is damaged.

    Frames are upright; their times are those in the file, so that a variable frame rate is kept.
    """
    try:
        decoder = open_video(path)
    except DataError as error:
        yield SourceImage(str(path), None, str(error))
        return
    total = None if decoder.total is None else math.ceil(decoder.total / stride)
    clip = Clip(str(path), decoder.fps / stride, total)
    count, damage = 0, missing_end(path)
    try:
        for number, seconds, rgb in decoder.frames(stride):
            yield SourceImage(str(path), rgb, frame=number, time_s=seconds, clip=clip)
            count += 1
        damage = damage or decoder.damage
    except DataError as error:
        damage = str(error)
    finally:
        decoder.close()
    if not count:
        damage = damage or "it has no frames"
        yield SourceImage(str(path), None, f"{path}: cannot be read as a video ({damage})")
    elif damage:
        text = f"{path}: the video is damaged ({damage}); {count} frames were read"
        yield SourceImage(str(path), None, text, clip=clip)


def open_video(path: Path) -> Decoder:
    """Open a video file.

    Raises:
        DataError: it is missing, empty, no video, a playlist, or larger than the limit of pixels.
    """
    refuse_special(path, DataError)
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except FileNotFoundError:
        raise DataError(f"{path}: no such video") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason_of(error)})") from None
    if not start:
        raise DataError(f"{path}: cannot be read as a video (the file is empty)")
    if start.lstrip().startswith(_PLAYLISTS):
        raise DataError(f"{path}: is a list of other files, not a video")
    has_av = find_spec("av") is not None
    return AvDecoder(str(path)) if has_av else OpenCVDecoder(path)


class AvDecoder:
    """A video file or stream through PyAV."""

    def __init__(
        self, address: str, options: dict[str, str] | None = None, timeout_s: float | None = None
    ) -> None:
        """Open a file, which may not name other ones, or what `options` allow.

        Args:
            address: the path or URL.
            options: of FFmpeg.
            timeout_s: limit for opening and for each read.

        Raises:
            DataError: it cannot be opened, has no video, or its frames are too large.
        """
        self._av: Any = import_module("av")
        self._path, self.damage = address, ""
        options = options or {"protocol_whitelist": "file"}
        try:
            self._file = self._av.open(
                address, options=options, metadata_errors="replace", timeout=timeout_s
            )
        except (self._av.FFmpegError, UnicodeError) as error:
            raise DataError(f"{address}: cannot be read as a video ({_av_reason(error)})") from None
        if not self._file.streams.video:
            self.close()
            raise DataError(f"{address}: has no video")
        self._stream = self._file.streams.video[0]
        codec = self._stream.codec_context
        if codec is None:
            self.close()
            raise DataError(f"{address}: cannot be read as a video (unknown codec)")
        check_size(address, codec.width, codec.height)
        codec.options = {"max_pixels": str(max_pixels())}
        codec.thread_type = "AUTO"
        self.fps = float(self._stream.average_rate or 0) or _DEFAULT_FPS
        self.total = self._stream.frames or self._estimate()
        self._start = float((self._stream.start_time or 0) * self._stream.time_base)
        self._declared = declared_by_av(self._file, self._stream)
        self._converter = self._av.video.reformatter.VideoReformatter()

    def frames(self, stride: int) -> Iterator[tuple[int, float, Pixels]]:
        """As `Decoder.frames`; frames with errors are left out and noted in `damage`."""
        number, bad, reached = 0, 0, Reached(self.fps)
        for frame in self._decoded():
            if frame is not None:
                reached.add(frame.time, float((frame.duration or 0) * (frame.time_base or 0)))
            if frame is None or frame.is_corrupt:
                bad += 1
                number += frame is not None
                continue
            number += 1
            if (number - 1) % stride == 0:
                seconds = frame.time
                seconds = (number - 1) / self.fps if seconds is None else seconds - self._start
                yield number, seconds, self._upright(frame)
        if bad:
            self.damage = self.damage or f"{bad} frames cannot be decoded"
        self.damage = self.damage or reached.missing(self._declared)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _decoded(self) -> Iterator[Any]:
        """Frames, and None for each packet that cannot be decoded."""
        packets = self._file.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except self._av.FFmpegError as error:
                self.damage = _av_reason(error)
                return
            if packet is None:
                return
            try:
                yield from packet.decode()
            except self._av.FFmpegError as error:
                if not isinstance(error, self._av.error.EOFError):
                    yield None

    def _upright(self, frame: Any) -> Pixels:  # noqa: ANN401  (av.VideoFrame)
        check_size(self._path, frame.width, frame.height)
        rgb: Pixels = self._converter.reformat(frame, format="rgb24").to_ndarray()
        quarters = round(frame.rotation / 90) % 4  # counter-clockwise
        return np.ascontiguousarray(np.rot90(rgb, quarters)) if quarters else rgb

    def _estimate(self) -> int | None:
        duration = self._file.duration
        return round(duration / self._av.time_base * self.fps) if duration else None


class OpenCVDecoder:
    """A video file through OpenCV."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            DataError: it cannot be opened, or its frames are too large.
        """
        self.damage = ""
        self._capture = open_capture(str(path))
        if not self._capture.isOpened():
            raise DataError(f"{path}: cannot be read as a video (unknown format, or damaged)")
        width, height, fps, count = (
            self._capture.get(getattr(cv2, f"CAP_PROP_{name}"))
            for name in ("FRAME_WIDTH", "FRAME_HEIGHT", "FPS", "FRAME_COUNT")
        )
        check_size(str(path), int(width), int(height))
        self.fps = fps if 0 < fps < 10_000 else _DEFAULT_FPS
        self.total = int(count) if 0 < count < 1e9 else None
        self._declared = declared_by_opencv(path, self.total, self.fps)

    def frames(self, stride: int) -> Iterator[tuple[int, float, Pixels]]:
        """As `Decoder.frames`."""
        number, reached = 0, Reached(self.fps)
        while self._capture.grab():
            number += 1
            seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            reached.add(seconds)
            if (number - 1) % stride:
                continue
            there, bgr = self._capture.retrieve()
            if not there:
                self.damage = f"frame {number} cannot be decoded"
                continue
            yield number, seconds, np.ascontiguousarray(bgr[..., ::-1])
        self.damage = self.damage or reached.missing(self._declared)

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


def open_capture(source: str | int, timeout_s: float | None = None) -> Any:  # noqa: ANN401
    """Open a cv2.VideoCapture without messages of OpenCV and FFmpeg on stderr.

    Args:
        source: a file or an address, opened with FFmpeg; a number is a camera.
        timeout_s: limit for opening and for each read.
    """
    quiet_opencv()
    limits = [] if timeout_s is None else [int(timeout_s * 1000)]
    keys = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
    options = [number for key in keys for limit in limits for number in (key, limit)]
    backend = cv2.CAP_ANY if isinstance(source, int) else cv2.CAP_FFMPEG
    return cv2.VideoCapture(source, backend, options)


def quiet_opencv() -> None:
    """Turn off the messages of OpenCV and its FFmpeg on stderr."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when FFmpeg is first used
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def check_size(path: str, width: int, height: int) -> None:
    """Check the size of a frame.

    Raises:
        DataError: it is larger than images may be.
    """
    if width * height > max_pixels():
        limit = max_pixels() // 10**6
        raise DataError(
            f"{path}: frames of {width}x{height} have more than {limit} megapixels; "
            f"{MAX_MEGAPIXELS}=1000 sets the limit"
        )


def _av_reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)

"""Write the annotated frames of a clip as an MP4 file: with PyAV if installed, else with OpenCV.

PyAV writes H.264 at the times of the frames, and copies the sound of the source. OpenCV's wheels
have no H.264 encoder; they write MPEG-4 part 2 at the mean frame rate, without sound.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from rtdetr_cli.core.console import say, warn
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.core.files import storage_errors
from rtdetr_cli.core.image import Pixels
from rtdetr_cli.core.opencv import cv2
from rtdetr_cli.media.item import Clip
from rtdetr_cli.media.video import quiet_opencv

_CODECS = ("libx264", "libopenh264", "mpeg4")
"""Encoders of FFmpeg in order of preference; the first two write H.264."""
_LONGEST_STILL = 250
"""Frames by which OpenCV fills a gap between two frames of a stream, which have no fixed rate."""
_LARGEST = (8190, 4320)
"""Side and size: MPEG-4 part 2 has 13 bits for a side, level 6.2 of H.264 139,264 macroblocks."""
_LEAST_FPS, _MOST_FPS = 0.01, 1000.0
"""Rates that all encoders take; frames keep their times."""
_TICKS = 60_000  # per second; MPEG-4 part 2 takes at most 65,535


class VideoWriter:
    """Writes frames under a temporary name, renamed by `close`."""

    def __init__(self, path: Path, clip: Clip) -> None:
        self._path = path
        self._clip = replace(clip, fps=min(max(clip.fps, _LEAST_FPS), _MOST_FPS))
        self._temporary = path.with_name(f".{path.stem}-{os.getpid()}.mp4")
        self._encoder: _AvEncoder | _OpenCVEncoder | None = None
        self._size_wh = (0, 0)

    def write(self, image_bgr: Pixels, time_s: float) -> None:
        """Add a frame; one of another size than the first, or too large, is stretched.

        Raises:
            BackendError: no encoder works.
            StorageError: disk full or no permission.
        """
        frame = _even(image_bgr)
        with _encoder_errors(self._path):
            if self._encoder is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._size_wh = self._fitting(frame)
                kind = _AvEncoder if find_spec("av") else _OpenCVEncoder
                self._encoder = kind(self._temporary, self._path, self._clip, self._size_wh)
            if (frame.shape[1], frame.shape[0]) != self._size_wh:
                frame = np.asarray(cv2.resize(frame, self._size_wh), dtype=np.uint8)
            self._encoder.write(frame, time_s)

    def close(self) -> None:
        """Finish the file; frames so far are kept whatever has ended the run.

        Raises:
            BackendError: the encoder fails.
            StorageError: disk full or no permission.
        """
        if self._encoder is None:
            return
        encoder, self._encoder = self._encoder, None
        with _encoder_errors(self._path):
            try:
                encoder.close()
                self._temporary.replace(self._path)
            finally:
                self._temporary.unlink(missing_ok=True)

    def _fitting(self, frame: Pixels) -> tuple[int, int]:
        """Width and height of the video: even, within what all encoders and players take."""
        height, width = frame.shape[:2]
        shrink = max(1.0, max(width, height) / _LARGEST[0])
        shrink = max(shrink, math.sqrt(width * height / math.prod(_LARGEST)))
        if shrink == 1:
            return width, height
        size = max(2, int(width / shrink) & ~1), max(2, int(height / shrink) & ~1)
        most = "x".join(map(str, _LARGEST))
        warn(
            f"{self._clip.path}: videos hold frames up to {most}; those of {width}x{height} are "
            f"scaled to {size[0]}x{size[1]}"
        )
        return size


@contextmanager
def _encoder_errors(path: Path) -> Iterator[None]:
    """Raise StorageError where the system refuses to write, and BackendError where FFmpeg does."""
    av = sys.modules.get("av")
    refused: tuple[type[Exception], ...] = (av.FFmpegError,) if av else ()
    with storage_errors(path):
        try:
            yield
        except refused as error:
            if isinstance(error, OSError):
                raise
            raise BackendError(
                f"{path}: FFmpeg cannot write this video ({error}); save=false writes none"
            ) from error


class _AvEncoder:
    def __init__(self, file: Path, path: Path, clip: Clip, size_wh: tuple[int, int]) -> None:
        self._av: Any = import_module("av")
        codec = next(name for name in _CODECS if _has_encoder(self._av, name))
        if codec == "mpeg4":
            _say_mpeg4()
        self._file = self._av.open(str(file), "w")
        rate = Fraction(clip.fps).limit_denominator(1001)
        options = {"preset": "veryfast", "crf": "20"} if codec == "libx264" else {"qscale": "3"}
        self._stream = self._file.add_stream(codec, rate=rate, options=options)
        self._stream.width, self._stream.height = size_wh
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        self._sound = None if clip.is_live else _Sound.of(self._av, clip.path, self._file)
        self._last = -1

    def write(self, image_bgr: Pixels, time_s: float) -> None:
        frame = self._av.VideoFrame.from_ndarray(image_bgr, format="bgr24")
        self._last = max(self._last + 1, round(time_s * _TICKS))
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        self._file.mux(self._stream.encode(frame))
        if self._sound:
            self._sound.copy(until_s=time_s)

    def close(self) -> None:
        try:
            self._file.mux(self._stream.encode(None))
            if self._sound:
                self._sound.copy(until_s=self._last / _TICKS + 1 / float(self._stream.average_rate))
                self._sound.close()
        finally:
            self._file.close()


class _Sound:
    """Copies the packets of the first audio stream of a video, without decoding them."""

    def __init__(self, av: Any, source: Any, target: Any) -> None:  # noqa: ANN401  (containers)
        self._av, self._source, self._target = av, source, target
        self._stream = target.add_stream_from_template(source.streams.audio[0])
        video = source.streams.video[0]
        self._start = float((video.start_time or 0) * video.time_base)
        self._packets = source.demux(source.streams.audio[0])
        self._next: Any = None

    @classmethod
    def of(cls, av: Any, path: str, target: Any) -> _Sound | None:  # noqa: ANN401
        """Open the sound of a file; None if it has none that MP4 can hold."""
        try:
            source = av.open(
                path, options={"protocol_whitelist": "file"}, metadata_errors="replace"
            )
        except (av.FFmpegError, UnicodeError):
            return None
        if not source.streams.audio:
            source.close()
            return None
        codec = source.streams.audio[0].codec_context
        if codec is None or codec.name not in target.supported_codecs | {"mp3", "mp3float"}:
            warn(f"{path}: its sound is left out: MP4 files cannot hold {codec and codec.name}")
            source.close()
            return None
        return cls(av, source, target)

    def copy(self, until_s: float) -> None:
        """Write the packets that begin before a time of the video."""
        while True:
            if self._next is None and not self._read():
                return
            packet = self._next
            seconds = float(packet.pts * packet.time_base) - self._start
            if seconds > until_s:
                return
            self._next = None
            if seconds >= 0:
                offset = round(self._start / packet.time_base)
                packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
                packet.stream = self._stream
                self._target.mux(packet)

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _read(self) -> bool:
        """Read the next packet with a time; False at the end or at damage."""
        with suppress(StopIteration, self._av.FFmpegError):
            while self._next is None:
                packet = next(self._packets)
                self._next = None if packet.pts is None or packet.dts is None else packet
        return self._next is not None


class _OpenCVEncoder:
    def __init__(self, file: Path, path: Path, clip: Clip, size_wh: tuple[int, int]) -> None:
        quiet_opencv()
        for fourcc in ("avc1", "mp4v"):
            code = cv2.VideoWriter.fourcc(*fourcc)
            self._writer = cv2.VideoWriter(str(file), cv2.CAP_FFMPEG, code, clip.fps, size_wh)
            if self._writer.isOpened():
                break
            file.unlink(missing_ok=True)
        else:
            raise BackendError(
                f"{path}: this OpenCV cannot write videos; pip install 'rtdetr-cli[video]' can, "
                "and save=false writes none"
            )
        self._clip, self._written = clip, 0
        if fourcc == "mp4v":
            _say_mpeg4()

    def write(self, image_bgr: Pixels, time_s: float) -> None:
        due = round(time_s * self._clip.fps) - self._written if self._clip.is_live else 0
        for _ in range(max(0, min(due, _LONGEST_STILL)) + 1):
            self._writer.write(image_bgr)
            self._written += 1

    def close(self) -> None:
        self._writer.release()


@cache
def _say_mpeg4() -> None:
    """Name the codec, once a process."""
    say(
        "no H.264 encoder is installed: videos are written as MPEG-4 part 2, which browsers do not "
        "play; pip install 'rtdetr-cli[video]' adds H.264 and sound"
    )


def _has_encoder(av: Any, name: str) -> bool:  # noqa: ANN401  (the module)
    try:
        av.codec.Codec(name, "w")
    except ValueError:  # UnknownCodecError is one
        return False
    return True


def _even(image: Pixels) -> Pixels:
    """Repeat the last row or column of an image with odd sides, which H.264 cannot hold."""
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(image)

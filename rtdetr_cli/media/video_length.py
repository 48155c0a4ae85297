"""Find out whether the end of a video file is missing, from the lengths in its headers.

Decoders stop without an error where they find nothing more to decode, so that a damaged file can
look like a shorter one.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ISO_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"styp", b"uuid"}
_EBML = b"\x1a\x45\xdf\xa3"
_EBML_PARTS = {_EBML, b"\x18\x53\x80\x67"}
"""The header and the segment of Matroska and WebM."""
_AUDIO_TRACK = re.compile(rb"\x86[\x80-\xff]A_")
"""The codec of an audio track in Matroska."""
_HEAD = 1 << 16
_LARGEST_MOVIE_BOX = 1 << 26
_TOLERANCE = 1.5
"""Frames that may be missing at the end: encoders and their headers disagree about the last one."""


@dataclass
class Declared:
    """What the header of a file says about its video; None if it does not, or is not exact.

    Attributes:
        frames: number of frames.
        end_s: when the last one ends, in seconds from the same zero as the times of frames.
    """

    frames: int | None = None
    end_s: float | None = None


class Reached:
    """How far a video has been decoded."""

    def __init__(self, fps: float) -> None:
        self._frame_s = self._longest_s = 1 / fps
        self._last_s: float | None = None
        self._end_s = 0.0
        self.frames = 0

    def add(self, seconds: float | None, shown_s: float = 0.0) -> None:
        """Count a frame.

        Args:
            seconds: when it is shown, if it is known.
            shown_s: for how long, if it is known.
        """
        self.frames += 1
        if seconds is None:
            return
        if self._last_s is not None:
            self._longest_s = max(self._longest_s, seconds - self._last_s)
        self._last_s = seconds
        self._end_s = max(self._end_s, seconds + (shown_s or self._frame_s))

    def missing(self, declared: Declared) -> str:
        """Explain that fewer frames were decoded than the header declares; empty if not.

        With a variable frame rate the last frame may be shown as long as the longest other one.
        """
        if declared.frames is not None and declared.frames - self.frames > _TOLERANCE:
            return f"its header declares {declared.frames} frames, it ends after {self.frames}"
        gap_s = _TOLERANCE * self._longest_s
        if declared.end_s is not None and declared.end_s - self._end_s > gap_s:
            return f"its header declares {declared.end_s:.2f} s, it ends after {self._end_s:.2f} s"
        return ""


def declared_by_av(file: Any, stream: Any) -> Declared:  # noqa: ANN401  (containers of PyAV)
    """What PyAV finds in the header of a file."""
    kinds = set(file.format.name.split(","))
    if "avi" in kinds and stream.frames:
        return Declared(frames=stream.frames)
    if "mp4" in kinds and stream.duration:  # without the frames that an edit list leaves out
        return Declared(
            end_s=float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        )
    if "matroska" not in kinds:
        return Declared()
    own = re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", stream.metadata.get("DURATION", ""))
    if own:
        return Declared(end_s=int(own[1]) * 3600 + int(own[2]) * 60 + float(own[3]))
    is_alone = len(file.streams) == 1  # else the sound may be longer
    return Declared(end_s=file.duration / 1e6 if is_alone and file.duration else None)


def declared_by_opencv(path: Path, frames: int | None, fps: float) -> Declared:
    """What OpenCV's number of frames is worth: an estimate for Matroska, no edit lists for MP4."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    if frames is None:
        return Declared()
    if head.startswith(_EBML):
        return Declared(end_s=None if _AUDIO_TRACK.search(head) else frames / fps)
    if head.startswith(b"RIFF"):
        return Declared(frames=frames)
    share = _presented_share(path) if head[4:8] in _ISO_BOXES else 0
    return Declared(frames=int(frames * share) or None)


def missing_end(path: Path) -> str:
    """Explain that the end of an MP4, MOV, AVI, MKV or WebM file is missing; empty if it is there.

    The files consist of parts, each with its length. Other formats are not checked.
    """
    end = max((at + length for _, at, length in _parts(path)), default=0)
    lost = end - path.stat().st_size
    return f"its last {lost / 1e6:.2f} MB are missing" if lost > 1 else ""


def _parts(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """Head, place and length of the parts; none follows one of another format."""
    size, at = path.stat().st_size, 0
    with path.open("rb") as stream:
        while at < size:
            stream.seek(at)
            head = stream.read(16)
            length = _part_length(head, size - at)
            if length is None:
                return  # another format, or bytes after the last part
            yield head, at, length
            at += length


def _part_length(head: bytes, rest: int) -> int | None:
    """Bytes of the part that begins with `head`; `rest` if it extends to the end of the file."""
    if head[:4] == b"RIFF" and len(head) >= 12:
        return 8 + int.from_bytes(head[4:8], "little")
    if head[:4] in _EBML_PARTS and len(head) > 12:
        width = 9 - head[4].bit_length()  # of the length: as many bytes as leading zero bits, + 1
        value = int.from_bytes(head[4 : 4 + width], "big") ^ (1 << 7 * width)
        return rest if value == (1 << 7 * width) - 1 else 4 + width + value
    if head[4:8] not in _ISO_BOXES:
        return None
    length = int.from_bytes(head[:4], "big")
    if length == 1:
        length = int.from_bytes(head[8:16], "big")
    return rest if length == 0 else length if length >= 8 else None


def _presented_share(path: Path) -> float:
    """The part of the video track of an MP4 file that its edit list presents; 0 if unknown."""
    movie = _movie_box(path)
    track = next((one for one in movie.split(b"trak")[1:] if b"vmhd" in one), b"")
    try:
        scale, _ = _last_fields(movie, b"mvhd", 1)
        own_scale, whole = _last_fields(track, b"mdhd", 1)
        _, shown = _last_fields(track, b"tkhd", 2)
        return min(1.0, shown / scale / (whole / own_scale))
    except (ValueError, struct.error, ZeroDivisionError):
        return 0.0


def _movie_box(path: Path) -> bytes:
    places = ((at, length) for head, at, length in _parts(path) if head[4:8] == b"moov")
    at, length = next(places, (0, 0))
    with path.open("rb") as stream:
        stream.seek(at)
        return stream.read(min(length, _LARGEST_MOVIE_BOX))


def _last_fields(boxes: bytes, name: bytes, fields: int) -> tuple[int, int]:
    """The last of `fields` numbers behind the two dates of a header box, and the duration.

    Source: ISO/IEC 14496-12, sections 8.2.2, 8.3.2 and 8.4.2; version 1 has 64-bit times.
    """
    at = boxes.index(name) + 4
    time = "Q" if boxes[at : at + 1] == b"\1" else "I"
    *_, last, duration = struct.unpack_from(f">2{time}{fields}I{time}", boxes, at + 4)
    return last, duration

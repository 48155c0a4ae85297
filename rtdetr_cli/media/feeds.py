"""Open a live source and yield its frames until it ends: cameras, screens, MJPEG, FFmpeg streams.

A feed has no memory and no second try; streams.py runs it on a thread and opens it again.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Generator, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from rtdetr_cli.core.errors import BrokenError, DataError, DownloadError
from rtdetr_cli.core.image import ImageFrames, Pixels
from rtdetr_cli.media.addresses import PROTOCOLS, WEB, Address
from rtdetr_cli.media.video import AvDecoder, check_size, open_capture

if TYPE_CHECKING:
    from http.client import HTTPResponse

STALL_S = 10.0
"""Seconds without a byte or a frame after which a stream counts as broken."""
MULTIPART = "multipart/x-mixed-replace"
_MAX_PART, _MAX_HEAD = 1 << 26, 1 << 14  # bytes of a JPEG and of the lines before it
_MAX_BAD = 50
"""So many images in a row that cannot be decoded end the connection."""
_BLOCK = 1 << 16
Feed = Generator[Pixels, None, None]
_environment = threading.Lock()


def open_feed(address: Address) -> Feed:
    """Yield (H, W, 3) uint8 RGB frames; returns where the sender has ended the stream properly.

    Raises:
        DataError: it cannot be opened, or it broke.
    """
    if address.scheme == "camera":
        return _capture_frames(int(address.text), address.name)
    if address.scheme == "screen":
        return _screen(address)
    if address.scheme in WEB:
        return _web(address)
    return _ffmpeg(address)


def open_web(address: Address) -> HTTPResponse:
    """Request a web address.

    Raises:
        DataError: no connection, or the server refuses.
    """
    from rtdetr_cli.core.connection import HEADERS, connect

    url, authorization = address.split_password()
    headers = {**HEADERS, "Authorization": authorization} if authorization else HEADERS
    try:
        return connect(url, headers, timeout_s=STALL_S)
    except (DownloadError, BrokenError) as error:
        raise DataError(f"{address.name}: {error}") from None


def _web(address: Address) -> Feed:
    """MJPEG, read here; another stream over HTTP (HLS, MPEG-TS) is left to FFmpeg."""
    with open_web(address) as response:
        kind = response.headers.get_content_type()
        boundary = response.headers.get_param("boundary")
        if kind == MULTIPART and isinstance(boundary, str):
            yield from _mjpeg(response, boundary.strip("-").encode(), address.name)
            return
    yield from _ffmpeg(address)


def _mjpeg(response: HTTPResponse, boundary: bytes, name: str) -> Feed:
    bad = 0
    try:
        for part in _Multipart(response, b"--" + boundary, name).parts():
            try:
                pixels, _ = next(iter(ImageFrames("a frame", part)))
            except DataError as error:
                bad += 1
                if bad >= _MAX_BAD:
                    raise DataError(f"{name}: sends no images that can be read ({error})") from None
                continue
            bad = 0
            yield pixels
    except (BrokenError, DownloadError) as error:
        raise DataError(f"{name}: {error}") from None


class _Multipart:
    """The body of a multipart response, whose parts are separated by lines with `mark`."""

    def __init__(self, response: HTTPResponse, mark: bytes, name: str) -> None:
        self._response, self._mark, self._name = response, mark, name
        self._buffer = bytearray()

    def parts(self) -> Iterator[bytes]:
        """Yield the content of each part; resumes at the next mark after garbage.

        Raises:
            DataError: the connection is closed within, or no mark comes.
        """
        while True:
            self._take(self._find(self._mark, _MAX_PART) + len(self._mark))
            self._fill_to(2)
            if self._buffer.startswith(b"--"):
                return  # the mark after the last part
            head = self._take(self._find(b"\r\n\r\n", _MAX_HEAD) + 4)
            length = re.search(rb"(?i)content-length:\s*(\d{1,8})\s", head)
            if length and int(length[1]) <= _MAX_PART:
                self._fill_to(int(length[1]))
                yield self._take(int(length[1]))
            else:
                yield self._take(self._find(self._mark, _MAX_PART))

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _find(self, text: bytes, limit: int) -> int:
        start = 0
        while (at := self._buffer.find(text, start)) < 0:
            if len(self._buffer) > limit:
                raise DataError(f"{self._name}: sends something else than images")
            start = max(0, len(self._buffer) - len(text))
            self._fill_to(len(self._buffer) + 1)
        return at

    def _fill_to(self, size: int) -> None:
        from rtdetr_cli.core.connection import read_block

        while len(self._buffer) < size:
            block = read_block(self._response, _BLOCK)
            if not block:
                raise DataError(f"{self._name}: the connection was closed")
            self._buffer += block


def _ffmpeg(address: Address) -> Feed:
    """A stream through PyAV or OpenCV; its end is an error unless it is one over HTTP."""
    protocols = PROTOCOLS[address.scheme]
    if find_spec("av") is not None:
        options = {"protocol_whitelist": protocols, "rtsp_transport": "tcp"}
        try:
            decoder = AvDecoder(address.text, options, STALL_S)
        except DataError as error:
            raise DataError(str(error).replace(address.text, address.name)) from None
        try:
            for _, _, rgb in decoder.frames(1):
                yield rgb
        finally:
            decoder.close()
        if decoder.damage:
            raise DataError(f"{address.name}: {decoder.damage}")
        if address.scheme not in WEB:
            raise DataError(f"{address.name}: the stream has ended")
    else:
        yield from _capture_frames(address.text, address.name, protocols)


def _capture_frames(source: int | str, name: str, protocols: str = "") -> Feed:
    """Frames of a camera or a stream through OpenCV."""
    key = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
    with _environment:
        before = os.environ.get(key)
        if protocols and before is None:
            os.environ[key] = f"rtsp_transport;tcp|protocol_whitelist;{protocols}"
        capture = open_capture(source, STALL_S if protocols else None)
        if before is None:
            os.environ.pop(key, None)
    try:
        if not capture.isOpened():
            raise DataError(f"{name}: cannot be opened")
        while True:
            there, bgr = capture.read()
            if not there:
                raise DataError(f"{name}: sends no more frames")
            check_size(name, bgr.shape[1], bgr.shape[0])
            yield np.ascontiguousarray(bgr[..., ::-1])
    finally:
        capture.release()


def _screen(address: Address) -> Feed:
    """Frames of `screen [number [left top width height]]`, as fast as they are used."""
    if find_spec("mss") is None:
        raise DataError("source=screen needs mss: pip install 'rtdetr-cli[screen]'")
    numbers = [int(number) for number in address.text.split()[1:]]
    if len(numbers) not in {0, 1, 4, 5}:
        raise DataError(f"{address.text}: expected screen [number] [left top width height]")
    mss = import_module("mss")
    try:
        with mss.mss() as camera:
            which = numbers[0] if len(numbers) in {1, 5} else 0
            if which >= len(camera.monitors):
                raise DataError(f"{address.name}: there are {len(camera.monitors) - 1} screens")
            area = dict(camera.monitors[which])
            if len(numbers) >= 4:
                left, top, area["width"], area["height"] = numbers[-4:]
                area["left"], area["top"] = area["left"] + left, area["top"] + top
            while True:
                bgra = np.asarray(camera.grab(area), dtype=np.uint8)
                yield np.ascontiguousarray(bgra[..., 2::-1])
    except mss.exception.ScreenShotError as error:
        raise DataError(f"{address.name}: cannot be captured ({error})") from None

"""Images and videos at web addresses; a video is downloaded before it is read.

FFmpeg never requests them itself, so that every redirect and length is checked here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from rtdetr_cli.core.download import OFFLINE, download, is_offline
from rtdetr_cli.core.errors import DataError, DownloadError
from rtdetr_cli.core.file_names import safe_name
from rtdetr_cli.core.image import IMAGE_SUFFIXES
from rtdetr_cli.media.addresses import Address
from rtdetr_cli.media.feeds import MULTIPART, open_web
from rtdetr_cli.media.item import Reading, SourceImage
from rtdetr_cli.media.readers import read_bytes, read_file
from rtdetr_cli.media.video import VIDEO_SUFFIXES

MAX_IMAGE_BYTES, MAX_VIDEO_BYTES = 1 << 28, 1 << 34
_PLAYLIST_SUFFIXES = {".m3u8", ".m3u", ".mpd"}
_PLAYLISTS = {"application/vnd.apple.mpegurl", "application/x-mpegurl", "application/dash+xml"}
_UNKNOWN = {"application/octet-stream", "binary/octet-stream"}


def is_live(address: Address) -> bool:
    """Whether a web address is a stream: by its suffix, else by what the server sends.

    Raises:
        DataError: no connection, or the server sends something else.
    """
    if address.suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
        return False
    return address.suffix in _PLAYLIST_SUFFIXES or _content(address) == "stream"


def read_web(address: Address, stride: int = 1) -> Reading:
    """Read an image, or every `stride`-th frame of a video or animation."""
    try:
        _refuse_offline(address)
        by_suffix = {True: "video", False: "image"}
        is_known = address.suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES
        kind = by_suffix[address.suffix in VIDEO_SUFFIXES] if is_known else _content(address)
        if kind == "image":
            from rtdetr_cli.core.small_download import fetch_bytes

            content = fetch_bytes(address.text, MAX_IMAGE_BYTES)
            yield from read_bytes(content, address.name, stride)
        else:
            yield from _read_video(address, stride)
    except DataError as error:
        yield SourceImage(address.name, None, str(error))
    except DownloadError as error:
        yield SourceImage(address.name, None, f"{address.name}: {error}")


def _refuse_offline(address: Address) -> None:
    if is_offline():
        raise DataError(f"{address.name}: {OFFLINE} is set")


def _content(address: Address) -> str:
    """`image`, `video` or `stream`."""
    with open_web(address) as response:
        kind = response.headers.get_content_type()
        length = response.length
    if kind == MULTIPART or kind in _PLAYLISTS or (kind.startswith("video/") and length is None):
        return "stream"
    if kind.startswith("image/") or kind in _UNKNOWN:
        return "image"
    if kind.startswith("video/"):
        return "video"
    raise DataError(f"{address.name}: is {kind}, not an image, a video or a stream")


def _read_video(address: Address, stride: int) -> Iterator[SourceImage]:
    name = safe_name(Path(unquote(urlsplit(address.text).path)).name) or "video"
    suffix = "" if address.suffix in VIDEO_SUFFIXES else ".mp4"
    with TemporaryDirectory(prefix="rtdetr-") as folder:
        path = download(address.text, Path(folder, name + suffix), max_bytes=MAX_VIDEO_BYTES)
        for item in filter(None, read_file(path, stride)):
            text = item.error.replace(str(path), address.name)
            yield item._replace(path=address.name, error=text)

"""Everything that can be a source: files, lists, addresses, arrays, bytes, and iterables of these.

All paths are checked before the first image is read; an unreadable image does not stop the
others. Items of standard input, generators and other iterables are looked at one by one.
"""

from __future__ import annotations

import codecs
import io
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdetr_cli.core.arrays import is_tensor
from rtdetr_cli.core.errors import DataError, UsageError
from rtdetr_cli.core.files import is_there, user_path
from rtdetr_cli.media.addresses import WEB, Address, parse_address, read_streams_file
from rtdetr_cli.media.item import Reading, SourceImage
from rtdetr_cli.media.paths import find_files
from rtdetr_cli.media.readers import read_bytes, read_file, read_in_memory
from rtdetr_cli.media.streams import LiveStreams
from rtdetr_cli.media.web import is_live, read_web
from rtdetr_cli.media.web_videos import is_video_page, resolve_page

if TYPE_CHECKING:
    from torch import Tensor

SourceLike: TypeAlias = (
    "str | Path | int | NDArray[Any] | Image.Image | Tensor | bytes | IO[bytes] | "
    "Sequence[SourceLike] | Iterable[SourceLike]"
)
Entry: TypeAlias = "Callable[[], Reading] | LiveStreams"
"""Reads one file or array: yields one image, or the frames of a clip."""

STDIN = "-"
_BYTES = (bytes, bytearray, memoryview)
_MAX_STDIN = 1 << 29
_TEXT_IMAGE = re.compile(rb"P[1-7](\s|$)")
"""Start of the formats that Pillow reads and that begin with text (PBM, PGM, PPM, PAM)."""


@dataclass(frozen=True)
class ReadOptions:
    """How sources are read."""

    vid_stride: int = 1
    """Every so many frames of a video, an animation or a stream, starting with the first."""
    stream_buffer: bool = False
    """Queue the frames of a stream; otherwise only the newest is used."""
    by_parts: bool = False
    """Open TIFF files above the limit of megapixels, whose parts are read later."""


class Source:
    """A sequence of images and frames, read lazily.

    Attributes:
        total: number of images and clips; None if it is not known before the end.
        is_live: whether it holds a camera or a stream.
        entries: reads each file or array.
    """

    def __init__(self, entries: Iterable[Entry], total: int | None, is_live: bool = False) -> None:
        self.entries, self.total, self.is_live = entries, total, is_live

    @property
    def is_local(self) -> bool:
        """Whether it consists of files and arrays, which can be read ahead without waiting."""
        return isinstance(self.entries, list) and not any(map(_is_remote, self.entries))

    def __iter__(self) -> Iterator[SourceImage]:
        for batch in self.batches(1):
            yield from batch

    def batches(self, size: int) -> Generator[list[SourceImage], None, None]:
        """Yield lists of up to `size` images and frames, in order.

        Live streams yield what is there, at most one frame of each: waiting for more would make
        the frames old.
        """
        batch: list[SourceImage] = []
        for entry in self.entries:
            if isinstance(entry, LiveStreams):
                yield from filter(None, [batch])
                batch = []
                yield from entry.batches()
                continue
            for item in filter(None, entry()):
                batch.append(item)
                if len(batch) == size:
                    yield batch
                    batch = []
        yield from filter(None, [batch])


def open_source(source: SourceLike, options: ReadOptions | None = None) -> Source:
    """Find all images, videos and streams of a source without reading them.

    Args:
        source: an image or video file, a folder, a pattern (`**` searches subfolders), a .txt file
            with one path per line, a .csv file of paths, a .streams file of addresses, an address,
            the number of a camera, `screen`, `-` for standard input; a NumPy array ((H, W, 3) uint8
            **BGR** as OpenCV reads it, also gray or with alpha), a Pillow image, a tensor
            ((B, 3, H, W) RGB, float in 0..1 or uint8), the bytes of an image or a file object; or a
            list, generator or other iterable of these.
        options: how they are read.

    Raises:
        DataError: a path does not exist, contains no images, or an address is not supported.
        UsageError: the source has another type, or is a list that holds itself.
    """
    options = options or ReadOptions()
    if isinstance(source, str) and source == STDIN:
        return Source(_standard_input(options), None)
    if _is_lazy(source):
        return Source(_one_by_one(source, options), None)
    entries = _joined(_all_entries(source, options, count()), options)
    if not entries:
        raise DataError("the source is an empty list")
    live = [entry for entry in entries if isinstance(entry, LiveStreams)]
    return Source(entries, len(entries) + sum(len(one) - 1 for one in live), bool(live))


def _is_lazy(source: Any) -> TypeGuard[Iterable[Any]]:  # noqa: ANN401  (any user input)
    """Whether items come one by one: generators, loaders and other iterables."""
    whole = (
        str,
        Path,
        np.ndarray,
        Image.Image,
        *_BYTES,
        list,
        tuple,
        Mapping,
        Set,
    )
    is_whole = isinstance(source, whole) or is_tensor(source)
    reads = hasattr(source, "read")  # files iterate over lines
    return isinstance(source, Iterable) and not is_whole and not reads


def _all_entries(source: Any, options: ReadOptions, numbers: Iterator[int]) -> list[Entry]:  # noqa: ANN401
    """The entries of a source, whose lists may hold lists."""
    try:
        return list(_entries(source, options, numbers))
    except RecursionError:
        raise UsageError("the source is a list that holds itself, or lists too deep") from None


def _entries(source: Any, options: ReadOptions, numbers: Iterator[int]) -> Iterator[Entry]:  # noqa: ANN401
    """The entries of a source, in order; images in memory are named by `numbers`."""
    if isinstance(source, (list, tuple)):
        for item in source:
            yield from _entries(item, options, numbers)
    elif (isinstance(source, np.ndarray) or is_tensor(source)) and source.ndim == 4:
        for image in source:
            yield partial(read_in_memory, image, f"image{next(numbers)}.jpg")
    elif isinstance(source, (str, Path)) or type(source) is int:
        for one in _named(str(source), options):
            next(numbers)
            yield one
    else:
        yield _in_memory(source, options, numbers)


def _in_memory(source: Any, options: ReadOptions, numbers: Iterator[int]) -> Entry:  # noqa: ANN401
    """The entry of one image in memory, named after its file if it comes from one."""
    is_data = isinstance(source, _BYTES) or hasattr(source, "read")
    if not (is_data or isinstance(source, (np.ndarray, Image.Image)) or is_tensor(source)):
        raise UsageError(
            f"a source of type {type(source).__name__} cannot be read; expected a path, a NumPy "
            "array, a Pillow image, a tensor, bytes, or a list or iterable of these"
        )
    number = next(numbers)
    name = getattr(source, "name" if is_data else "filename", "") or f"image{number}.jpg"
    if is_data:
        return partial(read_bytes, source, str(name), options.vid_stride)
    return partial(read_in_memory, source, str(name))


def _named(source: str, options: ReadOptions) -> Iterator[Entry]:
    """The entries of a path or an address; an existing file is never taken for an address."""
    address = None if is_there(source) else parse_address(source)
    if address is not None:
        yield _address_entry(_resolved(address), options)
    elif source.lower().endswith(".streams") and user_path(source).is_file():
        addresses = [*map(_resolved, read_streams_file(user_path(source)))]
        yield LiveStreams(addresses, options.stream_buffer, options.vid_stride)
    else:
        yield from (
            partial(read_file, path, options.vid_stride, options.by_parts)
            for path in find_files(source)
        )


def _resolved(address: Address) -> Address:
    return resolve_page(address) if is_video_page(address) else address


def _address_entry(address: Address, options: ReadOptions) -> Entry:
    if address.scheme in WEB and not is_live(address):
        return partial(read_web, address, options.vid_stride)
    return LiveStreams([address], options.stream_buffer, options.vid_stride)


def _is_remote(entry: Entry) -> bool:
    return isinstance(entry, LiveStreams) or getattr(entry, "func", None) is read_web


def _joined(entries: list[Entry], options: ReadOptions) -> list[Entry]:
    """Run streams that follow each other at the same time, as the first would never end."""
    found: list[Entry] = []
    for entry in entries:
        last = found[-1] if found else None
        if isinstance(entry, LiveStreams) and isinstance(last, LiveStreams):
            addresses = [*last.addresses, *entry.addresses]
            found[-1] = LiveStreams(addresses, options.stream_buffer, options.vid_stride)
        else:
            found.append(entry)
    return found


def _one_by_one(source: Iterable[Any], options: ReadOptions) -> Iterator[Entry]:
    """The entries of an iterable; an item that does not exist is an error in its place."""
    numbers = count()
    for item in source:
        try:
            yield from _all_entries(item, options, numbers)
        except DataError as error:
            yield partial(iter, [SourceImage(str(item)[:200], None, str(error))])


def _standard_input(options: ReadOptions) -> Iterator[Entry]:
    """An image, or a list of paths, one per line; a path is a file and never an address."""
    stream = sys.stdin.buffer
    head = stream.peek(64) if isinstance(stream, io.BufferedReader) else b""
    if not _is_text(head.partition(b"\n")[0]):
        yield partial(read_bytes, stream.read(_MAX_STDIN), "stdin", options.vid_stride)
        return
    while line := stream.readline(1 << 16):
        name = line.decode("utf-8", "replace").strip("\r\n")
        if name:
            yield partial(read_file, Path(name), options.vid_stride, options.by_parts)


def _is_text(line: bytes) -> bool:
    """Whether a line is a path, not the start of an image."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(line)
    except UnicodeDecodeError:
        return False
    return text.rstrip("\r").isprintable() and bool(line) and not _TEXT_IMAGE.match(line)

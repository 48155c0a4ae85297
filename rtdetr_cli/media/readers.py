"""Read one file, array or byte string: yields an image, the frames of a clip, or an error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from PIL import Image

from rtdetr_cli.core.console import warn
from rtdetr_cli.core.encoding import encoding_of
from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.image import ImageFrames
from rtdetr_cli.media.in_memory import InMemory, to_pixels
from rtdetr_cli.media.item import LARGE_BYTES, Clip, Reading, SourceImage
from rtdetr_cli.media.large_image import find_large
from rtdetr_cli.media.video import VIDEO_SUFFIXES, read_video


def read_file(path: Path, stride: int = 1, by_parts: bool = False) -> Reading:
    """Read an image, or every `stride`-th frame of a video or animation.

    Args:
        path: of the file.
        stride: of the frames.
        by_parts: open TIFF files above the limit of megapixels, without reading their pixels.
    """
    try:
        large = find_large(path) if by_parts and path.is_file() else None
    except DataError as error:
        yield SourceImage(str(path), None, str(error))
        return
    if large is not None:
        yield SourceImage(str(path), large.placeholder(), large=large)
        return
    is_video = path.suffix.lower() in VIDEO_SUFFIXES
    yield from read_video(path, stride) if is_video else _read_image(str(path), stride)


def read_bytes(
    source: bytes | bytearray | memoryview | IO[Any], name: str, stride: int = 1
) -> Reading:
    """Read an image or animation from its bytes, or from a file object opened for bytes."""
    try:
        content: bytes | str = source.read() if hasattr(source, "read") else bytes(source)
    except (OSError, ValueError) as error:
        yield SourceImage(name, None, f"{name}: cannot be read ({error})")
        return
    if isinstance(content, str):
        yield SourceImage(name, None, f"{name}: is opened for text; open it with mode 'rb'")
        return
    yield from _read_image(name, stride, content)


def read_in_memory(image: InMemory, name: str) -> Iterator[SourceImage]:
    """Read a Pillow image, an array or a tensor."""
    try:
        encoding = encoding_of(image) if isinstance(image, Image.Image) else None
        yield SourceImage(name, to_pixels(image, name), encoding=encoding)
    except DataError as error:
        yield SourceImage(name, None, str(error))


def _read_image(name: str, stride: int, content: bytes | None = None) -> Reading:
    clip, time_s = None, 0.0
    try:
        frames = ImageFrames(name, content)
        if frames.num_bytes > LARGE_BYTES:
            yield None
        if frames.further_pages:
            warn(f"{name}: only the first of {frames.further_pages + 1} pages is used")
        for number, (pixels, duration_s) in enumerate(frames, start=1):
            if not frames.is_animated:
                yield SourceImage(name, pixels, encoding=frames.encoding)
                return
            total = None if frames.total is None else math.ceil(frames.total / stride)
            clip = clip or Clip(name, 1 / duration_s / stride, total)
            if (number - 1) % stride == 0:
                yield SourceImage(name, pixels, "", number, time_s, clip)
            time_s += duration_s
    except DataError as error:
        yield SourceImage(name, None, str(error), clip=clip)

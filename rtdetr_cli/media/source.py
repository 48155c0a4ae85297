"""Image sources: files, folders, patterns, lists, arrays, Pillow images, tensors, videos.

All paths are checked before the first image is read; an unreadable image does not stop the
others.
"""

from __future__ import annotations

import glob
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rtdetr_cli.core.console import warn
from rtdetr_cli.core.errors import DataError, UsageError, nearest
from rtdetr_cli.core.files import refuse_special, special_file, user_path
from rtdetr_cli.core.image import IMAGE_SUFFIXES, ImageFrames, read_image_size
from rtdetr_cli.media.in_memory import InMemory, to_pixels
from rtdetr_cli.media.item import Clip, SourceImage
from rtdetr_cli.media.video import VIDEO_SUFFIXES, read_video

SourceLike: TypeAlias = "str | Path | NDArray[Any] | Image.Image | Tensor | Sequence[SourceLike]"
Entry: TypeAlias = Callable[[], Iterator[SourceImage]]
"""Reads one file or array: yields one image, or the frames of a clip."""

_FOREIGN_SUFFIXES = frozenset({".dng", ".streams"})
"""Files that cannot be read; attempted, so that they are reported, not skipped."""


@dataclass(frozen=True)
class ReadOptions:
    """How sources are read."""

    vid_stride: int = 1
    """Every so many frames of a video or animation, starting with the first."""


class Source:
    """A sequence of images and frames, read lazily."""

    def __init__(self, entries: list[Entry]) -> None:
        self._entries = entries
        self.total = len(entries)
        """Number of images and clips."""

    def __iter__(self) -> Iterator[SourceImage]:
        for entry in self._entries:
            yield from entry()

    def batches(self, size: int) -> Iterator[list[SourceImage]]:
        """Yield lists of up to `size` images and frames, in order."""
        items = iter(self)
        while batch := list(islice(items, size)):
            yield batch


def open_source(source: SourceLike, options: ReadOptions | None = None) -> Source:
    """Find all images and videos of a source without reading them.

    Args:
        source: an image or video file, a folder, a pattern (`**` searches subfolders), a .txt file
            with one path per line, a .csv file of paths, a NumPy array ((H, W, 3) uint8 **BGR** as
            OpenCV reads it, also gray or with alpha), a Pillow image, a tensor ((B, 3, H, W) RGB,
            float in 0..1 or uint8), or a list of these.
        options: how they are read.

    Raises:
        DataError: a path does not exist, contains no images, or is a camera or a URL.
        UsageError: the source has another type.
    """
    options = options or ReadOptions()
    entries: list[Entry] = []
    for item in _flat(source):
        if isinstance(item, Path):
            entries.append(partial(_read_file, item, options))
        else:
            name = getattr(item, "filename", "") or f"image{len(entries)}.jpg"
            entries.append(partial(_read_in_memory, item, str(name)))
    if not entries:
        raise DataError("the source is an empty list")
    return Source(entries)


def _flat(source: Any) -> Iterator[Any]:  # noqa: ANN401  (any user input)
    """Paths of files, arrays, Pillow images and single-image tensors, in order."""
    if isinstance(source, (str, Path)):
        yield from _find_files(str(source))
    elif isinstance(source, (list, tuple)):
        for item in source:
            yield from _flat(item)
    elif isinstance(source, Tensor) and source.ndim == 4:
        yield from source
    elif isinstance(source, (np.ndarray, Image.Image, Tensor)):
        yield source
    elif type(source) is int:
        raise DataError(f"{source}: cameras are not supported yet")
    else:
        raise UsageError(
            f"a source of type {type(source).__name__} cannot be read; expected a path, a NumPy "
            "array, a Pillow image, a tensor or a list of these"
        )


def _find_files(source: str) -> list[Path]:
    try:
        return _matching_files(source)
    except OSError as error:  # no permission, a name that is too long
        raise DataError(f"{source[:200]}: {error.strerror}") from error


def _matching_files(source: str) -> list[Path]:
    path = user_path(source)
    if path.is_dir():
        return _images_among(path.iterdir(), f"{source}: the folder", f"{source}/**/*")
    refuse_special(path, DataError)
    if path.suffix.lower() in {".txt", ".csv"} and path.is_file():
        return _listed(path)
    if path.exists():
        if path.suffix.lower() == ".streams":
            raise DataError(f"{path}: streams are not supported yet")
        return [path]
    if "://" in source or source.isdigit() or source.split(" ")[0] == "screen":
        raise DataError(f"{source}: cameras, screens and network sources are not supported yet")
    if glob.has_magic(source):
        found = (Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207 (**)
        return _images_among(found, f"{source}: the pattern", "")
    siblings = path.parent.iterdir() if path.parent.is_dir() else ()
    hint = nearest(path.name, [sibling.name for sibling in siblings])
    raise DataError(f"{source}: no such file or folder{hint}")


def _images_among(paths: Iterable[Path], what: str, deeper: str) -> list[Path]:
    images = sorted(path for path in paths if _looks_like_image(path))
    if not images:
        hint = f"; source='{deeper}' also searches its subfolders" if deeper else ""
        raise DataError(f"{what} contains no images{hint}")
    return images


def _looks_like_image(path: Path) -> bool:
    """Decide by suffix, or by header without a suffix; hidden files are skipped."""
    if path.name.startswith(".") or not (path.is_file() or special_file(path)):
        return False
    if path.suffix:
        return path.suffix.lower() in IMAGE_SUFFIXES | _FOREIGN_SUFFIXES | VIDEO_SUFFIXES
    try:
        read_image_size(path)
    except DataError:
        return False
    return True


def _listed(list_file: Path) -> list[Path]:
    """Read the paths in a .txt file, relative to its folder or else to the current one.

    In a .csv file, commas also separate them, as in Ultralytics.
    """
    try:
        text = list_file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{list_file}: cannot be read as a list of paths") from error
    is_csv = list_file.suffix.lower() == ".csv"
    paths = []
    for number, line in enumerate(text.splitlines(), start=1):
        for name in filter(None, map(str.strip, line.split(",") if is_csv else [line])):
            beside = list_file.parent / name
            path = beside if beside.exists() else Path(name)
            refuse_special(path, DataError)
            if not path.is_file():
                raise DataError(f"{list_file}:{number}: no such image: {name}")
            paths.append(path)
    if not paths:
        raise DataError(f"{list_file}: the list is empty")
    return paths


def _read_file(path: Path, options: ReadOptions) -> Iterator[SourceImage]:
    """Read an image, or the frames of a video or animation."""
    if path.suffix.lower() in VIDEO_SUFFIXES:
        yield from read_video(path, options.vid_stride)
    elif path.suffix.lower() == ".streams":
        yield SourceImage(str(path), None, f"{path}: streams are not supported yet")
    else:
        yield from _read_image(path, options.vid_stride)


def _read_image(path: Path, stride: int) -> Iterator[SourceImage]:
    """Read an image file: one image, or every `stride`-th frame of an animation."""
    name, clip, time_s = str(path), None, 0.0
    try:
        frames = ImageFrames(path)
        if frames.further_pages:
            warn(f"{path}: only the first of {frames.further_pages + 1} pages is used")
        for number, (pixels, duration_s) in enumerate(frames, start=1):
            if not frames.is_animated:
                yield SourceImage(name, pixels)
                return
            clip = clip or Clip(name, 1 / duration_s / stride, _strided(frames.total, stride))
            if (number - 1) % stride == 0:
                yield SourceImage(name, pixels, "", number, time_s, clip)
            time_s += duration_s
    except DataError as error:
        yield SourceImage(name, None, str(error), clip=clip)


def _strided(total: int | None, stride: int) -> int | None:
    return None if total is None else math.ceil(total / stride)


def _read_in_memory(image: InMemory, name: str) -> Iterator[SourceImage]:
    try:
        yield SourceImage(name, to_pixels(image, name))
    except DataError as error:
        yield SourceImage(name, None, str(error))

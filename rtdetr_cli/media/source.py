"""Image sources: files, folders, patterns, lists, arrays, Pillow images, tensors.

All paths are checked before the first image is read; an unreadable image does not stop the
others.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rtdetr_cli.core.console import warn
from rtdetr_cli.core.errors import DataError, UsageError, nearest
from rtdetr_cli.core.files import refuse_special, special_file, user_path
from rtdetr_cli.core.image import (
    IMAGE_SUFFIXES,
    Pixels,
    is_animated,
    read_image,
    read_image_size,
    to_rgb,
)

SourceLike: TypeAlias = "str | Path | NDArray[Any] | Image.Image | Tensor | Sequence[SourceLike]"

_VIDEO_SUFFIXES = frozenset(
    {".asf", ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
    | {".streams"}
)
_FOREIGN_SUFFIXES = frozenset({".dng"})
"""Formats that Pillow does not support; attempted, so that they are reported, not skipped."""


class SourceImage(NamedTuple):
    """One image of a source: its pixels, or the error."""

    path: str
    image: Pixels | None
    """(H, W, 3) uint8 RGB, upright."""
    error: str = ""


class Source:
    """A sequence of images, read lazily."""

    def __init__(self, readers: list[tuple[str, Callable[[], Pixels]]]) -> None:
        self._readers = readers

    def __len__(self) -> int:
        return len(self._readers)

    def __iter__(self) -> Iterator[SourceImage]:
        for path, read in self._readers:
            try:
                yield SourceImage(path, read())
            except DataError as error:
                yield SourceImage(path, None, str(error))


def open_source(source: SourceLike) -> Source:
    """Find all images of a source without reading them.

    Args:
        source: an image file, a folder, a pattern (`**` searches subfolders), a .txt file with one
            path per line, a .csv file of paths, a NumPy array ((H, W, 3) uint8 **BGR** as OpenCV
            reads it, also gray or with alpha), a Pillow image, a tensor ((B, 3, H, W) RGB, float in
            0..1 or uint8), or a list of these.

    Raises:
        DataError: a path does not exist, contains no images, or is a video, a camera or a URL.
        UsageError: the source has another type.
    """
    readers: list[tuple[str, Callable[[], Pixels]]] = []
    for item in _flat(source):
        if isinstance(item, Path):
            readers.append((str(item), partial(_read_file, item)))
        elif isinstance(item, Image.Image):
            name = getattr(item, "filename", "") or f"image{len(readers)}.jpg"
            readers.append((str(name), partial(_read_pillow, item, str(name))))
        else:
            name = f"image{len(readers)}.jpg"
            convert = _read_tensor if isinstance(item, Tensor) else _read_array
            readers.append((name, partial(convert, item, name)))
    if not readers:
        raise DataError("the source is an empty list")
    return Source(readers)


def _flat(source: Any) -> Iterator[Any]:  # noqa: ANN401  (any user input)
    """Paths of image files, arrays, Pillow images and single-image tensors, in order."""
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
        raise DataError(f"{source}: cameras and other video sources are not supported yet")
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
        _refuse_video(path)
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
        return path.suffix.lower() in IMAGE_SUFFIXES | _FOREIGN_SUFFIXES | _VIDEO_SUFFIXES
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


def _refuse_video(path: Path) -> None:
    if path.suffix.lower() in _VIDEO_SUFFIXES:
        raise DataError(f"{path}: video sources are not supported yet")


def _read_file(path: Path) -> Pixels:
    _refuse_video(path)
    image = read_image(path)
    if path.suffix.lower() == ".gif" and is_animated(path):
        warn(f"{path}: only the first frame is used; video sources are not supported yet")
    return image


def _read_pillow(image: Image.Image, name: str) -> Pixels:
    try:
        return to_rgb(image)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise DataError(f"{name}: the Pillow image cannot be read ({error})") from error


def _read_array(array: NDArray[Any], name: str) -> Pixels:
    """(H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA, uint8, to (H, W, 3) RGB."""
    if array.dtype != np.uint8:
        raise DataError(f"{name}: an array of {array.dtype}; expected uint8 in 0..255")
    channels = array[..., None] if array.ndim == 2 else array
    if channels.ndim != 3 or channels.shape[2] not in {1, 3, 4} or channels.size == 0:
        raise DataError(f"{name}: an array of shape {array.shape}; expected (H, W, 3) BGR")
    rgb = channels[..., [0, 0, 0] if channels.shape[2] == 1 else [2, 1, 0]]
    return np.ascontiguousarray(rgb)


def _read_tensor(tensor: Tensor, name: str) -> Pixels:
    """(3, H, W) RGB, float in 0..1 or uint8, to (H, W, 3) uint8."""
    if tensor.ndim != 3 or tensor.shape[0] != 3 or tensor.numel() == 0:
        raise DataError(f"{name}: a tensor of shape {tuple(tensor.shape)}; expected (B, 3, H, W)")
    pixels = tensor.detach().cpu()
    if pixels.is_floating_point():
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # also catches NaN
            raise DataError(f"{name}: a float tensor must hold RGB in 0..1, or be uint8 in 0..255")
        pixels = (pixels.float() * 255).round().to(torch.uint8)
    if pixels.dtype != torch.uint8:
        raise DataError(f"{name}: a tensor of {pixels.dtype}; expected float in 0..1 or uint8")
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())

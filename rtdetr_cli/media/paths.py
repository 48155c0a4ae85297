"""Find the image and video files that a path, a folder, a pattern or a list of paths means."""

from __future__ import annotations

import errno
import glob
import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from rtdetr_cli.core.errors import DataError, nearest
from rtdetr_cli.core.files import refuse_special, special_file, user_path
from rtdetr_cli.core.image import IMAGE_SUFFIXES, read_image_size
from rtdetr_cli.media.video import VIDEO_SUFFIXES

_FOREIGN_SUFFIXES = frozenset({".dng", ".exr", ".hdr", ".jxl"})
"""Formats that Pillow does not support; attempted, so that they are reported, not skipped."""


def find_files(source: str) -> list[Path]:
    """The files of a path, folder, pattern or list, sorted where the source has no order.

    Raises:
        DataError: there are none, or a file of a list is missing.
    """
    try:
        return _matching_files(source)
    except OSError as error:  # no permission, a name that is too long
        raise DataError(f"{source[:200]}: {error.strerror}") from error


def _matching_files(source: str) -> list[Path]:
    if not source:  # not the current folder: a variable of a shell is often empty
        raise DataError("the source is an empty text; the current folder is source=.")
    path = user_path(source)
    if path.is_dir():
        return _images_among(path.iterdir(), f"{source}: the folder", f"{source}/**/*")
    refuse_special(path, DataError)
    if path.suffix.lower() in {".txt", ".csv"} and path.is_file():
        return _listed(path)
    if path.exists():
        return [path]
    if glob.has_magic(source):
        locked: list[Path] = []
        found = dict.fromkeys(map(Path, _matches(str(path), locked)))
        return sorted(_images_among(found, f"{source}: the pattern", "") + locked)
    siblings = path.parent.iterdir() if path.parent.is_dir() else ()
    hint = nearest(path.name, [sibling.name for sibling in siblings])
    raise DataError(f"{source}: no such file or folder{hint}")


def _images_among(paths: Iterable[Path], what: str, deeper: str) -> list[Path]:
    images = sorted(path for path in paths if _looks_like_image(path))
    if not images:
        hint = f"; source='{deeper}' also searches its subfolders" if deeper else ""
        raise DataError(f"{what} contains no images{hint}")
    return images


def _matches(pattern: str, locked: list[Path]) -> Iterator[str]:
    """Paths of a pattern; `**` enters each folder once, and folders that it cannot enter are added.

    The `**` of glob follows links to folders above until a name is too long, for each of several
    links again.
    """
    parts = Path(pattern).parts
    if "**" not in parts:
        yield from glob.glob(pattern)  # noqa: PTH207  (pathlib has no pattern of a whole path)
        return
    at = parts.index("**")
    above, below = parts[:at] or (".",), parts[at + 1 :] or ("*",)
    for root in glob.glob(str(Path(*above))):  # noqa: PTH207
        for folder in _folders(root, locked):
            yield from _matches(str(Path(glob.escape(folder), *below)), locked)


def _folders(root: str, locked: list[Path]) -> Iterator[str]:
    """A folder and all below it but hidden ones, each once; those behind links come last."""

    def note(error: OSError) -> None:
        if error.errno == errno.EACCES:
            locked.append(Path(error.filename))

    seen: set[str] = set()
    waiting = deque([root])
    while waiting:
        for folder, below, _ in os.walk(waiting.popleft(), onerror=note):
            real = os.path.realpath(folder)
            if real in seen:
                below.clear()
                continue
            seen.add(real)
            yield folder
            below[:] = [name for name in below if not name.startswith(".")]
            inner = (os.path.join(folder, name) for name in below)  # noqa: PTH118  (10 times as fast)
            waiting.extend(filter(os.path.islink, inner))


def _looks_like_image(path: Path) -> bool:
    """Decide by suffix, or by header without a suffix; hidden files and folders are skipped.

    Links to nothing, pipes and devices count by their suffix, so that they are reported.
    """
    if path.name.startswith(".") or path.is_dir():
        return False
    if path.suffix:
        return path.suffix.lower() in IMAGE_SUFFIXES | _FOREIGN_SUFFIXES | VIDEO_SUFFIXES
    if special_file(path):
        return False
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

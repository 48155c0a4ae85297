"""Unpacks the zip archive of a data set: nothing lands outside its folder, nothing is a link."""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

from rtdetr_cli.core.errors import DataError, StorageError

MAX_ENTRIES = 2_000_000
MAX_BYTES = 1 << 40
_DAMAGE = (zipfile.BadZipFile, ValueError, EOFError, RuntimeError, OverflowError)


def unpack(archive: Path, folder: Path, strip: str = "") -> None:
    """Unpack a zip archive.

    Args:
        archive: the file.
        folder: where to; made if it is absent.
        strip: name of a top folder that is left out if the whole archive lies in it.

    Raises:
        DataError: it is damaged, encrypted or too large, or an entry leads outside or is a link.
        StorageError: it needs more space than there is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            places = _places(opened, archive.name, strip)
            _check_room(opened, archive.name, folder)
            for entry, place in places.items():
                target = folder / place
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(entry) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
    except _DAMAGE as error:
        raise DataError(f"{archive.name} cannot be unpacked: {error}") from None


def is_below(place: str) -> bool:
    """Whether a relative place stays below the folder it counts from, on every system."""
    path = PurePosixPath(place)
    is_plain = not any(character in place for character in "\\:\0")
    return is_plain and not path.is_absolute() and ".." not in path.parts


def _places(opened: zipfile.ZipFile, name: str, strip: str) -> dict[zipfile.ZipInfo, PurePosixPath]:
    """Where each file goes, all of them checked before the first one is written."""
    entries = [entry for entry in opened.infolist() if not entry.is_dir()]
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if not is_below(entry.filename):
            raise DataError(f"{name} is not unpacked: {entry.filename!r} leads out of its folder")
        if kind not in {0, stat.S_IFREG}:
            raise DataError(f"{name} is not unpacked: {entry.filename} is a link or a device")
    paths = [PurePosixPath(entry.filename) for entry in entries]
    if strip and all(len(path.parts) > 1 and path.parts[0] == strip for path in paths):
        paths = [path.relative_to(strip) for path in paths]
    return dict(zip(entries, paths, strict=True))


def _check_room(opened: zipfile.ZipFile, name: str, folder: Path) -> None:
    """Declared sizes count: zipfile never writes more of an entry than it declares."""
    entries = opened.infolist()
    needed = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_ENTRIES or needed > MAX_BYTES:
        raise DataError(f"{name} is not unpacked: {len(entries)} files of {needed} bytes")
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"cannot unpack {name}: it needs {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free"
        )

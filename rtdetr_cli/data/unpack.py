"""Unpack an untrusted zip archive: inside its folder, within limits, no links, no programs.

All entries are checked before the first one is written: names, sizes, compression ratio, and the
memory needed for reading, none of which zipfile checks. unpack_tar.py has the same rules.
"""

from __future__ import annotations

import bz2
import copy
import errno
import io
import lzma
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from rtdetr_cli.core.console import say
from rtdetr_cli.core.errors import DataError, StorageError, printable
from rtdetr_cli.core.places import fault, folded

MAX_ENTRIES = 1_000_000
MAX_DIRECTORY = 1 << 27
"""Bytes of the central directory: 134 per entry."""
MAX_BYTES = 1 << 40
MAX_RATIO = 200
"""Unpacked size over packed size, above `_SMALL` bytes; label files compress tenfold."""
PROGRAMS = (".py", ".pyc", ".pyw", ".pyd", ".pth", ".so", ".dll", ".dylib")
"""Suffixes of files that Python could import from the current folder; not unpacked."""

_SMALL = 100_000_000
_ON_DISK = 4096  # bytes, also of an empty file
_BLOCK = 1 << 20
_LZMA_MEMORY = 1 << 28  # bytes; the largest dictionary of the usual programs is 64 MiB
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    ValueError,
    EOFError,
    RuntimeError,
    OverflowError,
    MemoryError,
)
_NO_NAME = {errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG}


@dataclass(frozen=True)
class Entry:
    """One entry of an archive that is not a folder."""

    number: int
    """Its position in the archive."""
    name: str
    size: int
    """Bytes, unpacked."""
    is_file: bool
    """False: a link or a device."""

    def __str__(self) -> str:
        return _shown(self.name)


def is_zip(path: Path) -> bool:
    """Whether a file is a zip archive, damaged or not."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return True


def unpack(archive: Path, folder: Path, strip: str = "", name: str = "") -> None:
    """Unpack a zip archive.

    Args:
        archive: the file.
        folder: target; created if absent.
        strip: name of a top-level folder that is removed if it contains the whole archive.
        name: name of the archive in messages; its file name if empty.

    Raises:
        DataError: it is damaged, encrypted or too large, or an entry is outside the folder, a link
            or a duplicate.
        StorageError: not enough disk space.
    """
    name = name or archive.name
    try:
        with _Bounded(archive) as file, zipfile.ZipFile(file) as opened:
            entries = [
                Entry(number, one.filename, one.file_size, _is_file(one))
                for number, one in enumerate(opened.infolist())
                if not one.filename.endswith("/")
            ]
            for entry, place in checked_places(entries, archive, folder, name, strip).items():
                _write(opened, opened.infolist()[entry.number], folder / place)
    except _DAMAGE as error:
        reason = printable(str(error) or type(error).__name__, 200)
        raise DataError(f"{name} cannot be unpacked: {reason}") from None


class _Bounded(io.FileIO):
    """Limits the central directory, since zipfile reads it in one piece."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"its central directory has {size} bytes")
        return super().read(size) or b""


def _is_file(entry: zipfile.ZipInfo) -> bool:
    return stat.S_IFMT(entry.external_attr >> 16) in {0, stat.S_IFREG}


def checked_places(
    entries: list[Entry], archive: Path, folder: Path, name: str, strip: str
) -> dict[Entry, PurePosixPath]:
    """Target of each file below `folder`, after checking all entries; arguments as in `unpack`.

    Raises:
        DataError: an entry is outside the folder, a link or a duplicate, or they are too large.
        StorageError: not enough disk space.
    """
    places = _places(entries, name, strip)
    _check_names(places, name)
    _check_size(places, name, archive, folder)
    return places


def _places(entries: list[Entry], name: str, strip: str) -> dict[Entry, PurePosixPath]:
    if len(entries) > MAX_ENTRIES:
        raise DataError(f"{name} is not unpacked: it has more than {MAX_ENTRIES} entries")
    for entry in entries:
        reason = None if entry.is_file else "is a link or a device"
        reason = reason if entry.name.strip("./") else "is not a file name"
        if reason := fault(entry.name) or reason:
            raise DataError(f"{name} is not unpacked: {entry} {reason}")
    entries = [entry for entry in entries if not _is_of_macos(entry.name)]
    programs = [entry for entry in entries if entry.name.lower().endswith(PROGRAMS)]
    if programs:
        entries = [entry for entry in entries if not entry.name.lower().endswith(PROGRAMS)]
        say(f"{name}: {len(programs)} programs are not unpacked, for example {programs[0]}")
    paths = [PurePosixPath(entry.name) for entry in entries]
    if strip and all(len(path.parts) > 1 and path.parts[0] == strip for path in paths):
        paths = [path.relative_to(strip) for path in paths]
    return dict(zip(entries, paths, strict=True))


def _is_of_macos(name: str) -> bool:
    """Whether macOS has added the entry, beside the top folder too."""
    return name.startswith("__MACOSX/") or name.endswith("/.DS_Store") or name == ".DS_Store"


def _check_names(places: dict[Entry, PurePosixPath], name: str) -> None:
    """Reject entries that are the same file on some system, or a file that is also a folder."""
    files = set[str]()
    for entry, path in places.items():
        key = folded(path.as_posix())
        if key in files:
            raise DataError(f"{name} is not unpacked: {entry} is a duplicate")
        files.add(key)
    folders = dict[str, PurePosixPath]()
    for last in {path.parent for path in places.values()}:
        for path in (last, *last.parents):
            other, shown = folders.setdefault(folded(path.as_posix()), path), _shown(path)
            if other != path:
                raise DataError(f"{name} is not unpacked: {shown} and {_shown(other)} are the same")
    both = files & folders.keys()
    if both:
        raise DataError(f"{name} is not unpacked: {_shown(min(both))} is a file and a folder")


def _shown(place: zipfile.ZipInfo | PurePosixPath | str) -> str:
    text = place.filename if isinstance(place, zipfile.ZipInfo) else str(place)
    return f"'{printable(text, 80)}'"


def _check_size(places: dict[Entry, PurePosixPath], name: str, archive: Path, folder: Path) -> None:
    """Check the declared sizes, which are never exceeded in writing."""
    packed, unpacked = archive.stat().st_size, sum(entry.size for entry in places)
    if unpacked > MAX_BYTES or unpacked > max(MAX_RATIO * packed, _SMALL):
        raise DataError(
            f"{name} is not unpacked: its {packed} bytes would become {len(places)} files of "
            f"{unpacked} bytes"
        )
    needed = unpacked + len(places) * _ON_DISK
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"cannot unpack {name}: it needs {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free"
        )


def _write(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            written = sum(file.write(block) for block in _blocks(opened, entry))
    except OSError as error:
        if error.errno not in _NO_NAME:
            raise
        raise zipfile.BadZipFile(f"{_shown(entry)} is not a valid file name here") from None
    if written != entry.file_size:
        raise zipfile.BadZipFile(f"{_shown(entry)} is shorter than it declares")


def _blocks(opened: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Content of an entry; with zstd (Python 3.14), 4 KiB may expand to 134 MB."""
    try:
        if entry.compress_type in {zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}:
            yield from _bounded_blocks(opened, entry)
            return
        is_bounded = entry.compress_type in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
        with opened.open(entry) as source:
            while block := source.read(_BLOCK if is_bounded else 4096):
                yield block
    except OSError as error:  # damaged bzip2 has no errno; an offset may be negative
        if error.errno not in {None, errno.EINVAL}:
            raise
        raise zipfile.BadZipFile(f"{_shown(entry)}: {error}") from None


def _bounded_blocks(opened: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """What an entry of bzip2 or LZMA holds.

    zipfile unpacks in one piece whatever it has read of these: 213 bytes of bzip2 become 100 MB.
    """
    raw = copy.copy(entry)  # the packed bytes, as if they were stored
    raw.compress_type, raw.file_size = zipfile.ZIP_STORED, entry.compress_size
    del raw.CRC
    left, checksum, packed = entry.file_size, 0, b""
    with opened.open(raw) as source:
        is_lzma = entry.compress_type == zipfile.ZIP_LZMA
        unpacker = _lzma_decompressor(source) if is_lzma else bz2.BZ2Decompressor()
        while left > 0 and not unpacker.eof:
            if unpacker.needs_input and not (packed := source.read(_BLOCK)):
                raise EOFError(f"{_shown(entry)} ends early")
            block, packed = unpacker.decompress(packed, min(left, _BLOCK)), b""
            left, checksum = left - len(block), zlib.crc32(block, checksum)
            yield block
    if checksum != entry.CRC:
        raise zipfile.BadZipFile(f"Bad CRC-32 for file {_shown(entry)}")


def _lzma_decompressor(source: IO[bytes]) -> lzma.LZMADecompressor:
    """Make a decompressor from the header of an entry: version, length of properties, properties.

    The `.lzma` format starts with the same properties and an unknown content length.
    """
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY)
    unpacker.decompress(source.read(9)[4:] + b"\xff" * 8)
    return unpacker

"""Unpack an untrusted tar archive without compression, by the rules of unpack.py.

tarfile only reads the headers; the content is copied from where they say it is, so that no rule
depends on what `tarfile.extract` does in which release of Python.
"""

from __future__ import annotations

import errno
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rtdetr_cli.core.errors import DataError, printable
from rtdetr_cli.data.unpack import MAX_ENTRIES, Entry, checked_places

MAX_HEADER = 1 << 14
"""Bytes of an extended header, which tarfile reads in one piece and parses in quadratic time."""
_BLOCK = 1 << 20
_DAMAGE = (tarfile.TarError, ValueError, EOFError, OverflowError)


def is_tar(path: Path) -> bool:
    """Whether a file begins with a header of a tar archive."""
    try:
        with _Bounded(path) as file, tarfile.open(fileobj=file, mode="r:"):
            return True
    except _DAMAGE:
        return False


def unpack_tar(archive: Path, folder: Path, strip: str = "", name: str = "") -> None:
    """Unpack a tar archive without compression; arguments and errors are those of `unpack`."""
    name = name or archive.name
    try:
        with _Bounded(archive) as file, tarfile.open(fileobj=file, mode="r:") as opened:
            members = [member for member in _members(opened, name) if not member.isdir()]
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # of a negative offset
            raise
        reason = printable(str(error) or type(error).__name__, 200)
        raise DataError(f"{name} cannot be unpacked: {reason}") from None
    entries = [
        Entry(number, member.name, member.size, member.isreg() and not member.issparse())
        for number, member in enumerate(members)
    ]
    size = archive.stat().st_size
    for entry, place in checked_places(entries, archive, folder, name, strip).items():
        if members[entry.number].offset_data + entry.size > size:
            raise DataError(f"{name} cannot be unpacked: {entry} ends early")
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open("rb") as source, target.open("wb") as written:
            source.seek(members[entry.number].offset_data)
            _copy(source, written, entry.size)


class _Bounded(io.FileIO):
    """Limits the headers, since tarfile reads each in one piece."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header has {size} bytes")
        return super().read(size) or b""


def _members(opened: tarfile.TarFile, name: str) -> Iterator[tarfile.TarInfo]:
    for number, member in enumerate(opened):
        if number >= MAX_ENTRIES:
            raise DataError(f"{name} is not unpacked: it has more than {MAX_ENTRIES} entries")
        yield member


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> None:
    while size > 0:
        block = source.read(min(_BLOCK, size))
        if not block:
            return
        size -= target.write(block)

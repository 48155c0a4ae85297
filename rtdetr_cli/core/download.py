"""Download files: resume, verify, and rename only after verification.

A partial file is `.NAME.part`, with its URL and validator in `.NAME.part.json`. The checksum of a
complete file is written to `NAME.sha256` and compared on each use. connection.py sends the
requests, and is imported when there is one. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from rtdetr_cli.core.console import progress, say
from rtdetr_cli.core.errors import (
    BrokenError,
    DownloadError,
    RTDETRError,
    StorageError,
    UsageError,
    printable,
)
from rtdetr_cli.core.files import atomic_write, sha256, storage_errors
from rtdetr_cli.core.lock import file_lock
from rtdetr_cli.core.urls import ascii_url

if TYPE_CHECKING:
    from http.client import HTTPResponse

OFFLINE, MIRROR = "RTDETR_OFFLINE", "RTDETR_MIRROR"
MAX_BYTES = 1 << 36
"""64 GiB, more than any published file."""
PAUSES_S = (1.0, 2.0, 4.0)
"""Delays before retries; an attempt that reached `MIN_PACE` resets the sequence."""

_MB = 1_000_000
_BLOCK = 1 << 16
_RESERVE = 32 * _MB  # left free on the disk
_LINE_EVERY_S = 10.0


@dataclass(frozen=True)
class _Notes:
    """Metadata of a partial file."""

    url: str
    validator: str
    """ETag or Last-Modified of the server, which changes with the file."""
    total: int
    """Bytes of the complete file."""


@dataclass(frozen=True)
class _Job:
    url: str
    path: Path
    known_sum: str | None
    max_bytes: int
    label: str

    @property
    def part(self) -> Path:
        return _part_of(self.path)

    @property
    def notes(self) -> Path:
        return self.path.with_name(f".{self.path.name}.part.json")

    def forget(self) -> None:
        """Remove the partial file."""
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)


def is_offline() -> bool:
    """Whether the environment disables the network (`RTDETR_OFFLINE=1`)."""
    return os.environ.get(OFFLINE, "").lower() not in {"", "0", "false"}


def mirrored(url: str, place: str) -> str:
    """The address on the mirror if one is set (`RTDETR_MIRROR`), else `url`.

    Args:
        url: the published address.
        place: path of the file on the mirror.

    Raises:
        UsageError: `RTDETR_MIRROR` is not a web address.
    """
    mirror = os.environ.get(MIRROR)
    if not mirror:
        return url
    try:
        ascii_url(mirror)
    except ValueError as error:
        raise UsageError(f"{MIRROR} {error}, found {printable(mirror, 200)}") from None
    return f"{mirror.rstrip('/')}/{place}"


def download(
    url: str,
    path: Path,
    known_sum: str | None = None,
    max_bytes: int = MAX_BYTES,
    check: Callable[[Path], object] | None = None,
    label: str = "",
) -> Path:
    """Download a file unless it exists; of several processes one downloads, the others wait.

    Args:
        url: http or https; redirects from https to http are refused.
        path: target of the verified file.
        known_sum: published SHA-256 in hexadecimal, if known; an existing file with another one is
            downloaded again.
        max_bytes: a larger file is refused.
        check: inspects the complete file under its temporary name; an exception rejects the file.
        label: name of the file in log output; its file name if empty.

    Returns:
        `path`.

    Raises:
        DownloadError: offline, no connection, a refusal of the server, a wrong length or checksum.
        StorageError: no space left, no permission.
    """
    job = _Job(url, path, known_sum, max_bytes, printable(label or path.name, 80))
    with file_lock(path):
        if path.is_file() and (known_sum is None or sha256(path) == known_sum):
            return path
        if is_offline():
            raise DownloadError(f"{OFFLINE} is set")
        with storage_errors(path):
            try:
                _keep(job, _fetch_right(job, check))
            finally:
                if not job.notes.is_file():  # the partial file cannot be resumed
                    job.forget()
    return path


def discard(path: Path) -> None:
    """Remove a downloaded file and its recorded checksum."""
    path.unlink(missing_ok=True)
    _sum_file(path).unlink(missing_ok=True)


def received(path: Path) -> int:
    """Bytes of a file that are on this machine, complete or not."""
    return _size(path) or _size(_part_of(path))


def hold_to_sum(file: Path, path: Path, known_sum: str | None) -> str:
    """Compute the SHA-256 of a file and compare it with the published and the recorded one.

    Args:
        file: file to verify, possibly under a temporary name.
        path: its final path; `PATH.sha256` holds the checksum at first use.
        known_sum: the published checksum, if known.

    Raises:
        DownloadError: the checksum differs from the published or recorded one.
    """
    found = sha256(file)
    if known_sum and found != known_sum:
        raise DownloadError(
            f"its SHA-256 is {found[:16]}..., but {known_sum[:16]}... was published"
        )
    recorded = _sum_file(path)
    if recorded.is_file():
        first = recorded.read_text(encoding="utf-8", errors="replace")[:64]
        if first != found:
            raise DownloadError(
                f"its SHA-256 is {found[:16]}..., but was {first[:16]}... at first use; delete "
                f"{recorded} if the publisher has changed the file"
            )
    return found


def record_sum(path: Path, found: str) -> None:
    """Record the checksum at first use, in the format of sha256sum."""
    if not _sum_file(path).is_file():
        with atomic_write(_sum_file(path)) as temporary:
            temporary.write_text(f"{found}  {path.name}\n", encoding="utf-8", newline="\n")


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _sum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _fetch_right(job: _Job, check: Callable[[Path], object] | None) -> str:
    """Download and verify; a resumed file with a wrong checksum is downloaded once more."""
    is_pieced = _fetch(job)
    while True:
        try:
            found = hold_to_sum(job.part, job.path, job.known_sum)
            if check:
                check(job.part)
        except (DownloadError, RTDETRError):
            job.forget()
            if not is_pieced:
                raise
            say(f"{job.label}: checksum mismatch after resuming; downloading again")
            _fetch(job)
            is_pieced = False
        else:
            return found


def _keep(job: _Job, found: str) -> None:
    """Record the checksum, then rename, so that a crash leaves no file without a checksum."""
    record_sum(job.path, found)
    job.part.replace(job.path)
    job.forget()


def _fetch(job: _Job) -> bool:
    """Retry until the file is complete; returns whether it was resumed."""
    from rtdetr_cli.core.connection import MIN_PACE

    failures, most, since = 0, _size(job.part), time.monotonic()
    is_pieced = most > 0
    while True:
        try:
            _receive(job)
        except BrokenError as error:
            reached, ended = _size(job.part), time.monotonic()
            is_slow = reached - most <= MIN_PACE * (ended - since)
            failures = failures + 1 if is_slow else 0
            most, is_pieced, since = max(most, reached), True, ended
            if failures > len(PAUSES_S):
                raise DownloadError(str(error)) from None
            pause = PAUSES_S[max(failures - 1, 0)]
            say(f"{job.label}: {error}; trying again in {pause:g} s")
            time.sleep(pause)
        else:
            return is_pieced


def _receive(job: _Job) -> None:
    """One attempt: resume the partial file or start from the first byte."""
    notes = _read_notes(job)
    with _ask(job, notes) as response:
        start, total = _place(response, job, notes)
        _check_room(job, (total or 0) - start)
        _write_notes(job, response, total)
        size = "of unknown size" if total is None else f"{total / _MB:.1f} MB"
        resumed = f", from {start / _MB:.1f} MB on" if start else ""
        say(f"downloading {printable(job.url, 200)} ({size}{resumed})")
        with job.part.open("r+b" if start else "wb") as file:
            file.seek(start)
            copied = _copy(response, file, job, total)
            whole = None if total is None else -(-(total - start) // _MB)
            for _ in progress(copied, whole, f"{job.label}, MB"):
                pass
            file.flush()
            os.fsync(file.fileno())


def _ask(job: _Job, notes: _Notes | None) -> HTTPResponse:
    from rtdetr_cli.core.connection import HEADERS, connect

    headers = dict(HEADERS)
    if notes:
        headers |= {"Range": f"bytes={_size(job.part)}-", "If-Range": notes.validator}
    try:
        return connect(job.url, headers)
    except BrokenError as error:
        if error.code == 416:  # the file is shorter than the partial one
            job.forget()
        raise


def _place(response: HTTPResponse, job: _Job, notes: _Notes | None) -> tuple[int, int | None]:
    """Return the offset of the response in the file and the total size, if declared."""
    from rtdetr_cli.core.connection import declared_length, refuse_compressed

    refuse_compressed(response)
    if response.status == 206 and notes:
        start = _size(job.part)
        expected = f"bytes {start}-{notes.total - 1}/{notes.total}"
        is_same = _validator(response) in {None, notes.validator}
        if response.headers.get("Content-Range") == expected and is_same:
            return start, notes.total
        job.forget()
        raise BrokenError("the server resumed with another file")
    total = declared_length(response, job.max_bytes)
    if total is None and not (response.chunked or job.known_sum):
        raise DownloadError("the server does not declare the length of the file")
    return 0, total


def _copy(response: HTTPResponse, file: IO[bytes], job: _Job, total: int | None) -> Iterator[int]:
    """Write the response; yield at every MB, for the progress bar."""
    from rtdetr_cli.core.connection import read_block

    position, due = file.tell(), time.monotonic() + _LINE_EVERY_S
    reported = position // _MB
    while total is None or position < total:
        block = read_block(response, min(_BLOCK, total - position) if total else _BLOCK)
        if not block and total is None:
            return
        if not block:
            raise BrokenError(f"the connection broke at {position:,} of {total:,} bytes")
        position += file.write(block)
        if position > job.max_bytes:
            raise DownloadError(f"it exceeds the limit of {job.max_bytes / _MB:.0f} MB")
        if position // _MB > reported:
            reported = position // _MB
            if total is None:
                _check_room(job, 0)
            yield reported
        if time.monotonic() > due and not sys.stderr.isatty():
            due = time.monotonic() + _LINE_EVERY_S
            say(f"{job.label}: {reported} MB" + (f" of {total / _MB:.0f}" if total else ""))


def _check_room(job: _Job, needed: int) -> None:
    free = shutil.disk_usage(job.path.parent).free
    if needed + _RESERVE > free:
        raise StorageError(
            f"cannot write {job.path}: it needs {(needed + _RESERVE) / _MB:.0f} MB and "
            f"{free / _MB:.0f} MB are free"
        )


def _validator(response: HTTPResponse) -> str | None:
    """Return the validator for If-Range: a strong ETag (RFC 9110, 13.1.5), else the date."""
    etag, date = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
    if re.fullmatch(r'"[!#-~]{0,200}"', etag):
        return str(etag)
    return str(date) if re.fullmatch(r"[ -~]{1,100}", date) else None


def _write_notes(job: _Job, response: HTTPResponse, total: int | None) -> None:
    """Describe the partial file; without a length or a validator it cannot be resumed."""
    validator = _validator(response)
    if response.status != 200:
        return
    job.forget()
    if validator and total is not None:
        content = json.dumps(asdict(_Notes(job.url, validator, total)))
        job.notes.write_text(content, encoding="utf-8")


def _read_notes(job: _Job) -> _Notes | None:
    """Read the notes, if they belong to this URL and the file is incomplete."""
    try:
        notes = _Notes(**json.loads(job.notes.read_text(encoding="utf-8")))
        is_usable = notes.url == job.url and 0 < _size(job.part) < notes.total
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return notes if is_usable else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0

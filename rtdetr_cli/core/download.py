"""The one downloader: resumes, verifies, and gives a file its name only when it is right.

Half of a file is kept beside its place as `.NAME.part` with a note of what it is the half of. The
checksum of a whole one is kept as `NAME.sha256` and compared from then on. connection.py asks the
server. Standard library only.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from rtdetr_cli.core.connection import MIN_PACE, BrokenError, DownloadError, connect
from rtdetr_cli.core.console import progress, say
from rtdetr_cli.core.errors import RTDETRError, StorageError, printable
from rtdetr_cli.core.files import atomic_write, sha256, storage_errors
from rtdetr_cli.core.lock import file_lock

OFFLINE = "RTDETR_OFFLINE"
MAX_BYTES = 1 << 36
"""64 GiB, more than any file of ours."""
PAUSES_S = (1.0, 2.0, 4.0)
"""Waiting before another attempt; an attempt at a pace of `MIN_PACE` starts the row again."""

_MB = 1_000_000
_BLOCK = 1 << 16
_RESERVE = 32 * _MB  # left free on the disk
_LINE_EVERY_S = 10.0


@dataclass(frozen=True)
class _Notes:
    """What half a file is the half of."""

    url: str
    validator: str
    """The server's ETag or Last-Modified: it has changed when the file has."""
    total: int
    """Bytes of the whole file."""


@dataclass(frozen=True)
class _Job:
    url: str
    path: Path
    known_sum: str | None
    max_bytes: int
    label: str

    @property
    def part(self) -> Path:
        return self.path.with_name(f".{self.path.name}.part")

    @property
    def notes(self) -> Path:
        return self.path.with_name(f".{self.path.name}.part.json")

    def forget(self) -> None:
        """Remove the half file."""
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)


def is_offline() -> bool:
    """Whether the environment forbids the network (`RTDETR_OFFLINE=1`)."""
    return os.environ.get(OFFLINE, "").lower() not in {"", "0", "false"}


def download(
    url: str,
    path: Path,
    known_sum: str | None = None,
    max_bytes: int = MAX_BYTES,
    check: Callable[[Path], object] | None = None,
    label: str = "",
) -> Path:
    """Fetch a file, unless it is there already; of several processes one fetches, all wait.

    Args:
        url: http or https; redirects never lead from https to http.
        path: of the whole, verified file.
        known_sum: its SHA-256 in hexadecimal, where it is known beforehand; a file that is there
            and has another one is fetched again.
        max_bytes: a larger file is refused.
        check: looks into the whole file under its temporary name; what it raises refuses the file.
        label: what log output calls the file; its name if empty.

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
                if not job.notes.is_file():  # such a half cannot be continued
                    job.forget()
    return path


def discard(path: Path) -> None:
    """Remove a downloaded file and its recorded checksum."""
    path.unlink(missing_ok=True)
    _sum_file(path).unlink(missing_ok=True)


def hold_to_sum(file: Path, path: Path, known_sum: str | None) -> str:
    """The SHA-256 of a file, once it is proved to be the right one.

    Args:
        file: what is looked at, under whatever name.
        path: its place; `PATH.sha256` is the checksum of its first use.
        known_sum: what the publisher says, where that is known.

    Raises:
        DownloadError: it is another file than published, or than at first use.
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
                f"{recorded} if the publisher has really changed the file"
            )
    return found


def record_sum(path: Path, found: str) -> None:
    """Keep the checksum of a file's first use, in the format of sha256sum."""
    if not _sum_file(path).is_file():
        with atomic_write(_sum_file(path)) as temporary:
            temporary.write_text(f"{found}  {path.name}\n", encoding="utf-8", newline="\n")


def _sum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _fetch_right(job: _Job, check: Callable[[Path], object] | None) -> str:
    """Bring the whole file and prove it; pieced together and wrong, it is fetched once more."""
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
    """Give the file its name; its checksum first, so that no crash leaves a file without one."""
    record_sum(job.path, found)
    job.part.replace(job.path)
    job.forget()


def _fetch(job: _Job) -> bool:
    """Try until the file is whole; returns whether it came in more than one piece."""
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
    """One attempt: continue where the last one ended, or start from the first byte."""
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


def _ask(job: _Job, notes: _Notes | None) -> http.client.HTTPResponse:
    headers = {"User-Agent": "rtdetr", "Accept-Encoding": "identity"}
    if notes:
        headers |= {"Range": f"bytes={_size(job.part)}-", "If-Range": notes.validator}
    try:
        return connect(job.url, headers)
    except BrokenError as error:
        if error.code == 416:  # it has less than we have
            job.forget()
        raise


def _place(
    response: http.client.HTTPResponse, job: _Job, notes: _Notes | None
) -> tuple[int, int | None]:
    """Where in the file the answer begins, and the bytes of the whole file if they are declared."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError("the server compresses the file although it was asked not to")
    if response.status == 206 and notes:
        start = _size(job.part)
        expected = f"bytes {start}-{notes.total - 1}/{notes.total}"
        is_same = _validator(response) in {None, notes.validator}
        if response.headers.get("Content-Range") == expected and is_same:
            return start, notes.total
        job.forget()
        raise BrokenError("the server resumed with another file")
    if response.status != 200:
        raise DownloadError(f"the server answered {response.status} {response.reason}")
    total = response.length
    if total is None and not (response.chunked or job.known_sum):
        raise DownloadError("the server does not say how long the file is")
    if (total or 0) > job.max_bytes:
        raise DownloadError(f"{(total or 0) / _MB:.0f} MB are more than this file may have")
    return 0, total


def _copy(
    response: http.client.HTTPResponse, file: IO[bytes], job: _Job, total: int | None
) -> Iterator[int]:
    """Write what comes; yields at every MB, for the bar."""
    position, due = file.tell(), time.monotonic() + _LINE_EVERY_S
    told = position // _MB
    while total is None or position < total:
        block = _read(response, min(_BLOCK, total - position) if total else _BLOCK)
        if not block and total is None:
            return
        if not block:
            raise BrokenError(f"the connection broke off at {position:,} of {total:,} bytes")
        position += file.write(block)
        if position > job.max_bytes:
            raise DownloadError(f"it is longer than the {job.max_bytes / _MB:.0f} MB it may have")
        if position // _MB > told:
            told = position // _MB
            if total is None:
                _check_room(job, 0)
            yield told
        if time.monotonic() > due and not sys.stderr.isatty():
            due = time.monotonic() + _LINE_EVERY_S
            say(f"{job.label}: {told} MB" + (f" of {total / _MB:.0f}" if total else ""))


def _read(response: http.client.HTTPResponse, limit: int) -> bytes:
    try:
        return response.read1(limit)
    except (OSError, http.client.HTTPException) as error:
        raise BrokenError(f"the connection broke off ({error})") from None


def _check_room(job: _Job, needed: int) -> None:
    free = shutil.disk_usage(job.path.parent).free
    if needed + _RESERVE > free:
        raise StorageError(
            f"cannot write {job.path}: it needs {(needed + _RESERVE) / _MB:.0f} MB and "
            f"{free / _MB:.0f} MB are free"
        )


def _validator(response: http.client.HTTPResponse) -> str | None:
    """What If-Range may name: a strong ETag (RFC 9110, 13.1.5), else the date."""
    etag, date = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
    if re.fullmatch(r'"[!#-~]{0,200}"', etag):
        return str(etag)
    return str(date) if re.fullmatch(r"[ -~]{1,100}", date) else None


def _write_notes(job: _Job, response: http.client.HTTPResponse, total: int | None) -> None:
    """Say what the half file is; without a length or a validator it cannot be resumed."""
    validator = _validator(response)
    if response.status != 200:
        return
    job.forget()
    if validator and total is not None:
        content = json.dumps(asdict(_Notes(job.url, validator, total)))
        job.notes.write_text(content, encoding="utf-8")


def _read_notes(job: _Job) -> _Notes | None:
    """The notes, if they belong to this address and something is left to fetch."""
    try:
        notes = _Notes(**json.loads(job.notes.read_text(encoding="utf-8")))
        is_usable = notes.url == job.url and 0 < _size(job.part) < notes.total
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return notes if is_usable else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0

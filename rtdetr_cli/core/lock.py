"""One process at a time on one file or folder; the system frees what a dead process held."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rtdetr_cli.core.console import say, warn
from rtdetr_cli.core.errors import StorageError, UsageError
from rtdetr_cli.core.files import storage_errors

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Be the only process at work on a file; its lock is `.NAME.lock` beside it and stays there.

    Raises:
        StorageError: the folder cannot be written or has no locks.
    """
    lock = path.with_name(f".{path.name}.lock")
    with storage_errors(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(_open_itself(lock), "ab")
    with file:
        is_told = False
        while not _try_lock(file, lock):
            if not is_told:
                say(f"waiting for another process that is getting {path.name}")
            is_told = True
            time.sleep(0.1)
        yield


def _open_itself(lock: Path) -> int:
    """Open a file, never what a link of that name leads to, nor a pipe that nobody reads."""
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_APPEND | careful, 0o666)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            raise StorageError(f"cannot lock {lock}: a link or a pipe is in the way") from None
        raise


def _try_lock(file: IO[bytes], lock: Path) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        raise StorageError(f"cannot lock {lock}: {error.strerror}") from None
    return True


@contextmanager
def claimed(folder: Path, doing: str) -> Iterator[None]:
    """Be the only process that writes into a folder; its lock is `.lock` in it for so long.

    The lock is the process' own: children that outlive it, as loading processes may, do not keep
    it. Where the file system has no locks a warning says so.

    Args:
        folder: exists.
        doing: what the other process does, for the error: `is being trained`.

    Raises:
        UsageError: another process has it.
        StorageError: no permission to write.
    """
    lock = folder / ".lock"
    with storage_errors(lock):
        file = lock.open("ab")
    with file:
        try:
            if sys.platform == "win32":
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise UsageError(
                f"{folder} {doing} by another process; wait for it or end it"
            ) from None
        except OSError as error:
            warn(f"{folder} cannot be locked ({error.strerror}); start no second process on it")
        try:
            yield
        finally:
            if sys.platform != "win32":  # where open files cannot be removed
                lock.unlink(missing_ok=True)

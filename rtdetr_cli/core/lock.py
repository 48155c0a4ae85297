"""Locks on files and folders; the system releases those of a dead process."""

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
    """Hold the lock of a file, `.NAME.lock` beside it, which is not deleted afterwards.

    Raises:
        StorageError: the folder cannot be written or does not support locks.
    """
    lock = path.with_name(f".{path.name}.lock")
    with storage_errors(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(_open_no_follow(lock), "ab")
    with file:
        has_printed = False
        while not _try_lock(file, lock):
            if not has_printed:
                say(f"waiting for another process that is downloading {path.name}")
            has_printed = True
            time.sleep(0.1)
        yield


def _open_no_follow(lock: Path) -> int:
    """Open a file without following a link or blocking on a pipe."""
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_APPEND | flags, 0o666)
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
def claimed(folder: Path, doing: str, name: str = ".lock") -> Iterator[None]:
    """Hold the lock of a folder, a file in it, which is deleted afterwards.

    The lock belongs to this process: children that outlive it, such as loading processes, do not
    keep it. Warns if the file system does not support locks.

    Args:
        folder: an existing folder.
        doing: for the error, what the other process does: `is being trained`.
        name: of the file.

    Raises:
        UsageError: another process holds the lock.
        StorageError: no permission to write.
    """
    lock = folder / name
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
            if sys.platform != "win32":  # where open files cannot be deleted
                lock.unlink(missing_ok=True)

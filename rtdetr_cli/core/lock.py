"""One process at a time on one file; the operating system frees what a dead process held."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rtdetr_cli.core.console import say
from rtdetr_cli.core.errors import StorageError
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
        file = lock.open("ab")
    with file:
        is_told = False
        while not _try_lock(file, lock):
            if not is_told:
                say(f"waiting for another process that is getting {path.name}")
            is_told = True
            time.sleep(0.1)
        yield


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

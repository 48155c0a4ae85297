"""Where files live and how they are written: all or nothing, never half.

Used by every room that reads a shipped YAML or leaves something on disk.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Literal

from rtdetr_cli.core.errors import StorageError

_PACKAGE = Path(__file__).resolve().parents[1]
_REASONS = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than allowed",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.EEXIST: "a file is in the way of its folder",
    errno.ENOTDIR: "a file is in the way of its folder",
    errno.EISDIR: "a folder is in the way",
}


def asset_dir(kind: Literal["models", "cfg"]) -> Path:
    """The shipped YAML folder: inside the package in a wheel, beside it in a checkout."""
    shipped = _PACKAGE / kind
    return shipped if shipped.is_dir() else _PACKAGE.parent / kind


def rtdetr_home() -> Path:
    """Where downloads and drawn data sets are kept: `RTDETR_HOME` or `~/.cache/rtdetr`."""
    home = os.environ.get("RTDETR_HOME")
    return Path(home).expanduser() if home else Path.home() / ".cache" / "rtdetr"


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a refused write (disk full, no permission) into one sentence that names `path`.

    Raises:
        StorageError: the operating system refused to write.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS:
            raise
        raise StorageError(f"cannot write {path}: {_REASONS[error.errno]}") from error


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; it becomes `path` only if all went well.

    The temporary file keeps the suffix, since writers choose the format by it.

    Raises:
        StorageError: disk full or no permission; nothing half-written stays behind.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path | str, files: Iterable[str]) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; it takes that name only if all went well.

    Args:
        folder: what to make; an older one is replaced if it holds nothing but such files.
        files: the names that will be in it, as `folder/file` where it has folders.

    Raises:
        StorageError: disk full, no permission, or other files lie in the older folder.
    """
    folder = Path(folder).absolute()
    temporary, older = (folder.with_name(f".{folder.name}-{os.getpid()}{end}") for end in ("", "~"))
    with storage_errors(folder):
        others = _files_below(folder) - set(files) if folder.exists() else ()
        if others:
            raise StorageError(f"cannot write {folder}: it holds other files ({min(others)})")
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for name in _files_below(temporary):
                with (temporary / name).open("rb+") as written:
                    os.fsync(written.fileno())
            if folder.exists():
                folder.rename(older)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(older, ignore_errors=True)


def _files_below(folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return {path.relative_to(folder).as_posix() for path in found}


def new_run_dir(project: Path | str, name: str, exist_ok: bool = False) -> Path:
    """Make and return `project/name`, or the first free of `name2`, `name3`... unless `exist_ok`.

    Raises:
        StorageError: no space left or no permission.
    """
    first = Path(project) / name
    with storage_errors(first):
        if exist_ok:
            first.mkdir(parents=True, exist_ok=True)
            return first
        first.parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            folder = first if number == 1 else first.with_name(f"{first.name}{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    raise AssertionError("count() does not end")


def sha256(path: Path) -> str:
    """Checksum of a file as 64 hexadecimal digits, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

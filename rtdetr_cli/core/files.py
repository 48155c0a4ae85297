"""Locations of shipped and downloaded files, atomic writes, and run folders."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Literal

from rtdetr_cli.core.errors import RTDETRError, StorageError, UsageError

_PACKAGE = Path(__file__).resolve().parents[1]
_REASONS = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than allowed",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.EEXIST: "a file has the name of its folder",
    errno.ENOTDIR: "a file has the name of its folder",
    errno.EISDIR: "a folder has this name",
    errno.ENOTEMPTY: "it holds other files",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "its links form a loop",
    errno.EIO: "the device failed",
    errno.EBADF: "it is closed",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
    errno.ESTALE: "the file system is gone",
    errno.ENOTCONN: "the file system is gone",
}
"""Errors of the environment, not defects of the toolkit."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SPECIAL = (
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def asset_dir(kind: Literal["models", "cfg"]) -> Path:
    """Return a shipped YAML folder: inside the package in a wheel, next to it in a checkout."""
    shipped = _PACKAGE / kind
    return shipped if shipped.is_dir() else _PACKAGE.parent / kind


def rtdetr_home() -> Path:
    """Return the folder of downloads and data sets: `RTDETR_HOME` or `~/.cache/rtdetr`."""
    return user_path(os.environ.get("RTDETR_HOME") or "~/.cache/rtdetr")


def user_path(path: str | Path) -> Path:
    """Expand `~` and `~name` in a path.

    Raises:
        UsageError: the home folder is unknown.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = Path(path).parts[0]
        raise UsageError(
            f"{path}: the home folder of {user} is not known; set HOME, or RTDETR_HOME for "
            "downloads, or give the full path"
        ) from None


def is_there(path: str | Path) -> bool:
    """Whether a file or folder exists; False for a text that no file system takes for a name."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def tilde(path: str | Path) -> str:
    """Shorten the home folder at the start of a path to `~`, for output that is made public."""
    text, home = str(path), os.path.expanduser("~")  # noqa: PTH111  (Path.home() may raise)
    is_below = len(home) > 1 and (text == home or text.startswith(home + os.sep))
    return f"~{text[len(home) :]}" if is_below else text


def special_file(path: Path | str) -> str | None:
    """Describe a FIFO, socket or device, which must not be opened; None for other paths."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):  # absent, or a NUL in its name: reported on opening
        return None
    return next((noun for is_kind, noun in _SPECIAL if is_kind(mode)), None)


def refuse_special(path: Path | str, error: type[RTDETRError]) -> None:
    """Reject a FIFO, device or socket without opening it.

    Raises:
        RTDETRError: of type `error`.
    """
    noun = special_file(path)
    if noun:
        raise error(f"{path}: is {noun}, expected a file")


def reason_of(error: OSError) -> str:
    """Describe an error of the operating system."""
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


def is_refusal(error: OSError) -> bool:
    """Whether the environment caused the error: a full disk, no permission, no temporary folder.

    A missing file does not count: the code that opens it must report its purpose.
    """
    return error.errno in _REASONS or (error.errno == errno.ENOENT and error.filename is None)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Convert a failed write (disk full, no permission) to a StorageError that names `path`.

    Raises:
        StorageError: the operating system refused to write.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS:
            raise
        raise StorageError(f"cannot write {path}: {reason_of(error)}") from error


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path next to `path` and rename it to `path` on success.

    The temporary file has the same suffix, since writers choose the format by it.

    Raises:
        StorageError: disk full or no permission; no partial file remains.
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
    """Yield a temporary folder next to `folder` and rename it to `folder` on success.

    Args:
        folder: target; an existing one is replaced if it holds no other files.
        files: relative paths of the files that will be in it.

    Raises:
        StorageError: disk full, no permission, or the existing folder holds other files.
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


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `folder`, absent or empty, and rename it on success.

    For many files, links among them: unlike `atomic_folder` it does not flush each one.

    Raises:
        StorageError: disk full or no permission; nothing remains of the folder.
    """
    temporary = folder.with_name(f".{folder.name}-{os.getpid()}")
    with storage_errors(folder):
        try:
            temporary.mkdir(parents=True)
        except FileNotFoundError:
            raise StorageError(_no_folders(folder)) from None
        try:
            yield temporary
            if folder.exists():
                folder.rmdir()  # Windows renames only to a free name
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _files_below(folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return {path.relative_to(folder).as_posix() for path in found}


def run_path(project: Path | str, name: str) -> Path:
    """Return `project/name` after checking that it is inside `project` with links resolved.

    Raises:
        UsageError: it is outside of `project`, or the name has control characters.
    """
    for key, text in (("project", str(project)), ("name", name)):
        if _CONTROL.search(text):
            raise UsageError(f"{key}={text}: a folder name cannot contain control characters")
    folder = user_path(project) / name
    root, real = (Path(os.path.realpath(path)) for path in (user_path(project), folder))
    if ".." in Path(name).parts or root not in real.parents:
        raise UsageError(
            f"name={name}: is not a folder inside project={project}; use project= for another place"
        )
    return folder


def new_run_dir(project: Path | str, name: str, exist_ok: bool = False) -> Path:
    """Create `project/name`, or the first free of `name2`, `name3`... unless `exist_ok`.

    Raises:
        UsageError: `name` is outside of `project`.
        StorageError: no space left or no permission.
    """
    first = run_path(project, name)
    try:
        with storage_errors(first):
            return _make_run_dir(first, exist_ok)
    except FileNotFoundError:
        raise StorageError(_no_folders(first)) from None


def _no_folders(path: Path) -> str:
    return f"cannot write {path}: its file system does not support folders"


def _make_run_dir(first: Path, exist_ok: bool) -> Path:
    first.parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        folder = first if number == 1 else first.with_name(f"{first.name}{number}")
        try:
            folder.mkdir(exist_ok=exist_ok)
        except FileExistsError:
            if exist_ok:  # a file has the name
                raise
            continue
        return folder
    raise AssertionError("count() does not end")


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

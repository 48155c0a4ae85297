"""Download a data set listed in its YAML, or explain how to get it.

core/download.py downloads and verifies; the folder is renamed once it is complete.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from rtdetr_cli.config.dataset import DatasetConfig, Download
from rtdetr_cli.core.connection import DownloadError
from rtdetr_cli.core.download import discard, download, is_offline
from rtdetr_cli.core.errors import DataError, printable
from rtdetr_cli.core.files import rtdetr_home, storage_errors
from rtdetr_cli.core.lock import file_lock
from rtdetr_cli.core.places import fault
from rtdetr_cli.data.unpack import PROGRAMS, is_zip, unpack

_OTHER_ARCHIVES = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_SHOWN_URLS = 3


def fetch(config: DatasetConfig) -> None:
    """Download the files that a data set YAML lists; of several processes one downloads.

    Raises:
        DataError: no files are listed, the network is off or fails, `path` is not allowed as a
            target, or an archive is invalid.
        StorageError: no space left or no permission.
    """
    if not config.download or is_offline():
        raise absent(config)
    _check_place(config)
    with file_lock(config.path):
        if config.path.exists():
            return
        half = config.path.with_name(f".{config.path.name}.unpacking")
        with storage_errors(config.path), _own_folder(half):
            archives = [_bring(one, half, config) for one in config.download]
            half.replace(config.path)
        for archive in archives:
            discard(archive)


def absent(config: DatasetConfig) -> DataError:
    """Error with the expected folder of a data set and its source."""
    name, folder = _name(config), printable(str(config.path), 200)
    if not config.download:
        return DataError(
            f"{name}: its folder {folder} does not exist; the head of {name} may say "
            "where the data set comes from"
        )
    return DataError(f"{name}: not on this machine; unpack {_urls(config)} into {folder}")


def _name(config: DatasetConfig) -> str:
    return config.origin.name if config.origin else "the data set"


def _urls(config: DatasetConfig) -> str:
    """The first URLs, shortened, as an untrusted YAML may have many long ones."""
    urls = [printable(one.url, 200) for one in config.download or ()]
    more = f" and {len(urls) - _SHOWN_URLS} more" if len(urls) > _SHOWN_URLS else ""
    return ", ".join(urls[:_SHOWN_URLS]) + more


def _check_place(config: DatasetConfig) -> None:
    """Allow downloads below two folders only, links resolved, and not into hidden folders.

    Hidden folders hold settings and plug-ins of programs, and a YAML may be in the home folder.
    """
    allowed = [rtdetr_home() / "datasets"]
    allowed += [config.origin.absolute().parent] if config.origin else []
    target = config.path.resolve()
    for folder in (folder.resolve() for folder in allowed):
        if folder in target.parents:
            place = target.relative_to(folder)
            if not (fault(place.as_posix()) or any(part[0] == "." for part in place.parts)):
                return
    raise DataError(
        f"{_name(config)}: refusing to download into {printable(str(target), 200)}, only below "
        f"{' or '.join(map(str, allowed))} and into no hidden or reserved folder; unpack "
        f"{_urls(config)} there yourself, or change path"
    )


@contextmanager
def _own_folder(folder: Path) -> Iterator[None]:
    """Create a temporary folder, removing leftovers of a killed process; removed at the end."""
    shutil.rmtree(folder, ignore_errors=True)  # a link is kept, and rejected by the next line
    folder.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _bring(one: Download, half: Path, config: DatasetConfig) -> Path:
    """Download one file and unpack it (zip) or copy it into the temporary folder."""
    url, name = printable(one.url, 200), Path(urlsplit(one.url).path).name
    if name.lower().endswith(_OTHER_ARCHIVES):
        raise DataError(f"{url} is not a zip archive; unpack it into {config.path} yourself")
    archive = rtdetr_home() / "downloads" / one.sha256
    try:
        download(one.url, archive, known_sum=one.sha256, label=name)
    except DownloadError as error:
        raise DataError(f"{url} could not be downloaded ({error}); {absent(config)}") from None
    try:
        _put(archive, name, half / (one.to or "."), "" if one.to else config.path.name)
    except DataError:
        discard(archive)
        raise
    return archive


def _put(archive: Path, name: str, target: Path, strip: str) -> None:
    shown = printable(name, 80)
    if is_zip(archive):
        unpack(archive, target, strip, shown)
        return
    if name.lower().endswith(".zip"):
        raise DataError(f"{shown} is not a zip archive despite its URL")
    if not name or fault(name) or name.lower().endswith(PROGRAMS):
        raise DataError(f"'{shown}' is not allowed as a file name in a data set")
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(archive, target / name)

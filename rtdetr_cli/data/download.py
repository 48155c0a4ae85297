"""Brings a data set that is not on this machine, if its YAML says from where, or says what to do.

core/download.py fetches and verifies; a folder gets its name only when all of it is there.
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

from rtdetr_cli.config.dataset import DatasetConfig, Download
from rtdetr_cli.core.download import DownloadError, download, is_offline
from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.files import rtdetr_home, storage_errors
from rtdetr_cli.core.lock import file_lock
from rtdetr_cli.data.unpack import is_below, unpack

_OTHER_ARCHIVES = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def fetch(config: DatasetConfig) -> None:
    """Make the folder of a data set from what its YAML lists; of several processes one does it.

    Raises:
        DataError: nothing is listed, the network is off or fails, an archive is not what it
            should be.
        StorageError: no space left or no permission.
    """
    if not config.download or is_offline():
        raise absent(config)
    with file_lock(config.path):
        if config.path.exists():
            return
        half = config.path.with_name(f".{config.path.name}.unpacking")
        with storage_errors(config.path):
            shutil.rmtree(half, ignore_errors=True)
            archives = [_bring(one, half, config) for one in config.download]
            half.replace(config.path)
            for archive in archives:
                archive.unlink()


def absent(config: DatasetConfig) -> DataError:
    """The error that says where the data set belongs and from where it comes."""
    name = config.origin.name if config.origin else "the data set"
    if not config.download:
        return DataError(
            f"{name}: its folder {config.path} does not exist; the head of {name} may say "
            "where the data set comes from"
        )
    urls = ", ".join(download.url for download in config.download)
    return DataError(f"{name}: not on this machine; unpack {urls} into {config.path}")


def _bring(one: Download, half: Path, config: DatasetConfig) -> Path:
    """Fetch one file and unpack it (a zip) or put it (anything else) into the half-made folder."""
    name = Path(urlsplit(one.url).path).name
    if not is_below(one.to or "."):
        raise DataError(f"{config.path.name}: download.to {one.to} leads out of {config.path}")
    if name.endswith(_OTHER_ARCHIVES):
        raise DataError(f"{one.url} is no zip archive; unpack it into {config.path} yourself")
    archive = rtdetr_home() / "downloads" / f"{one.sha256[:16]}-{name}"
    try:
        download(one.url, archive, known_sum=one.sha256.lower())
    except DownloadError as error:
        raise DataError(f"{one.url} could not be downloaded ({error}); {absent(config)}") from None
    target = half / (one.to or ".")
    if zipfile.is_zipfile(archive):
        unpack(archive, target, strip="" if one.to else config.path.name)
    else:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(archive, target / name)
    return archive

"""Download an absent data set, or explain how to get it.

A YAML lists archives and files (core/download.py downloads and verifies) or names a table of images
(listed_images.py). The folder gets its name once it is complete.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from rtdetr_cli.config.dataset import DatasetConfig, Download, ListedImages
from rtdetr_cli.core.consent import YES, ask, says_yes
from rtdetr_cli.core.console import progress, say
from rtdetr_cli.core.download import (
    MAX_BYTES,
    discard,
    download,
    hold_to_sum,
    is_offline,
    mirrored,
    received,
)
from rtdetr_cli.core.errors import DataError, DownloadError, OversizeError, StorageError, printable
from rtdetr_cli.core.files import rtdetr_home, storage_errors
from rtdetr_cli.core.lock import file_lock
from rtdetr_cli.core.places import fault
from rtdetr_cli.core.status import counted
from rtdetr_cli.data.listed_images import (
    ListedImage,
    fetch_images,
    read_table,
    warn_of_other,
    write_labels,
)
from rtdetr_cli.data.unpack import PROGRAMS, is_zip, unpack
from rtdetr_cli.data.unpack_tar import is_tar, unpack_tar

ASK_ABOVE = 1_000_000_000
"""Bytes that are downloaded without a question."""
_OTHER_ARCHIVES = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_SHOWN_URLS = 3


def fetch(config: DatasetConfig) -> None:
    """Download an absent data set; of several processes one downloads, the others wait.

    Raises:
        DataError: nothing is listed, the network is off or fails, nobody agreed to a large
            download, `path` is not allowed as a target, or an archive or an image is invalid.
        StorageError: no space left or no permission.
    """
    has_source = config.download or config.images
    if not has_source or is_offline() or config.may_download is False:
        raise absent(config)
    _check_place(config)
    agreed = _require_consent(config)
    with file_lock(config.path), storage_errors(config.path):
        if config.path.exists():
            return
        if config.images:
            _fetch_listed(config, config.images)
        else:
            _fetch_archives(config, agreed)


def _fetch_archives(config: DatasetConfig, agreed: bool) -> None:
    """Download all files before the first one is unpacked."""
    _check_room(config)
    archives, spent = list[tuple[Download, Path]](), 0
    for one in config.download or ():
        limit = MAX_BYTES if agreed else max(ASK_ABOVE - spent, 0)
        archive = _download(one, config, limit)
        archives.append((one, archive))
        spent += archive.stat().st_size
    with _own_folder(_beside(config, "unpacking")) as half:
        for one, archive in archives:
            _put(one, archive, half, config)
        half.replace(config.path)
    for one, archive in archives:
        _drop(one, archive)


def _check_room(config: DatasetConfig) -> None:
    """Reject a data set whose archives and unpacked files do not fit, as far as sizes are known."""
    needed = 0
    for one in config.download or ():
        needed += 2 * (one.num_bytes or 0) - min(received(_archive(one)), one.num_bytes or 0)
    free = shutil.disk_usage(config.path.parent).free
    if needed > free:
        raise StorageError(
            f"cannot download {_name(config)}: archives and unpacked files need {needed / 1e9:.1f} "
            f"GB and {free / 1e9:.1f} GB are free in {config.path.parent}"
        )


def _fetch_listed(config: DatasetConfig, images: ListedImages) -> None:
    """Fetch the images of a shipped table; those of an earlier, failed start are kept."""
    listed, half = read_table(images.path), _beside(config, "partial")
    if half.is_symlink():
        raise StorageError(f"cannot write {half}: a link is in the way")
    half.mkdir(exist_ok=True)
    for leftover in half.rglob(".*"):  # a process was killed while it wrote
        leftover.unlink()
    missing = [image for image in listed if not image.is_in(half)]
    url = _address(images.url, config)
    kept = f", {len(listed) - len(missing)} are there" if len(missing) < len(listed) else ""
    few = counted(len(missing), "image")
    say(f"{_name(config)}: downloading {few} from {printable(url, 200)}{kept}")
    reason = ""
    try:
        try:
            fetch_images(missing, url, half, _name(config))
        except DownloadError as error:
            reason = f"{error}; "
            say(f"{_name(config)}: {error}; trying {_address(images.archive, config)}")
            _fetch_zipped(config, images, [one for one in missing if not one.is_in(half)], half)
    except DataError as error:
        raise DataError(f"{_name(config)}: {reason}{error}{_kept(listed, half)}") from None
    write_labels(listed, half)
    half.replace(config.path)


def _kept(listed: list[ListedImage], half: Path) -> str:
    """End of the sentence of a failure; a folder without a right image is removed."""
    count = sum(image.is_in(half) for image in listed)
    if count:
        return f"; {count} of {len(listed)} images are kept in {half} for the next try"
    shutil.rmtree(half, ignore_errors=True)
    return ""


def _fetch_zipped(
    config: DatasetConfig, images: ListedImages, missing: list[ListedImage], half: Path
) -> None:
    """Take the missing images from the archive that has them too."""
    one = Download(images.archive)
    archive = _download(one, config, ASK_ABOVE)
    with _own_folder(_beside(config, "unpacking")) as whole:
        _put(one, archive, whole, config)
        for image in progress(missing, len(missing), f"{_name(config)}, images"):
            path = whole / image.place
            if not path.is_file():
                raise DataError(f"{printable(one.url, 200)} has no {image.place}")
            warn_of_other(image, image.keep(path.read_bytes(), half))
    _drop(one, archive)


def _require_consent(config: DatasetConfig) -> bool:
    """Whether a download of any size was agreed to; a small one needs no consent.

    Raises:
        DataError: it is large, or its size or content is not known, and nobody agreed.
    """
    if config.may_download or says_yes():
        return True
    files = config.download or ()
    sizes = [one.num_bytes for one in files if one.num_bytes is not None]
    is_known = all(one.sha256 for one in files)
    if is_known and sum(sizes) <= ASK_ABOVE:
        return False
    total = f"{sum(sizes) / 1e9:.1f} GB" if len(sizes) == len(files) else "a file of unknown size"
    if not is_known:
        total += " without a checksum"
    return _agree(config, total)


def _agree(config: DatasetConfig, what: str) -> bool:
    """Ask whether to download; raises DataError unless the user agrees."""
    urls = _shown(_address(one.url, config) for one in config.download or ())
    source = f"{urls} into {printable(str(config.path), 200)}"
    answer = ask(f"{_name(config)}: download {what} from {source}?")
    if answer is None:
        raise DataError(
            f"{_name(config)}: not on this machine; download=true or {YES}=1 downloads {what} "
            f"from {source}"
        )
    if not answer:
        raise DataError(f"{_name(config)}: not downloaded; {_by_hand(config)}")
    return True


def absent(config: DatasetConfig) -> DataError:
    """Error with the expected folder of a data set and its source."""
    name, folder = _name(config), printable(str(config.path), 200)
    if config.script:
        return DataError(
            f"{name}: not on this machine, and its download is a script, which is never run "
            f"({printable(config.script, 60)}); run it yourself, or put the data into {folder}"
        )
    if not config.download and not config.images:
        return DataError(
            f"{name}: its folder {folder} does not exist; the head of {name} may say "
            "where the data set comes from"
        )
    return DataError(f"{name}: not on this machine; {_by_hand(config)}")


def _by_hand(config: DatasetConfig) -> str:
    return f"unpack {_urls(config)} into {printable(str(config.path), 200)}"


def _name(config: DatasetConfig) -> str:
    return config.origin.name if config.origin else "the data set"


def _urls(config: DatasetConfig) -> str:
    """The published addresses of the archives."""
    if config.images:
        return _shown([config.images.archive])
    return _shown(one.url for one in config.download or ())


def _shown(addresses: Iterable[str]) -> str:
    """The first addresses, shortened, as an untrusted YAML may have many long ones."""
    urls = [printable(one, 200) for one in addresses]
    more = f" and {len(urls) - _SHOWN_URLS} more" if len(urls) > _SHOWN_URLS else ""
    return ", ".join(urls[:_SHOWN_URLS]) + more


def _address(url: str, config: DatasetConfig) -> str:
    """Where to download from: a mirror replaces the server of a shipped data set."""
    return mirrored(url, urlsplit(url).path.lstrip("/")) if config.is_shipped else url


def _beside(config: DatasetConfig, purpose: str) -> Path:
    """A hidden folder beside that of the data set."""
    return config.path.with_name(f".{config.path.name}.{purpose}")


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
def _own_folder(folder: Path) -> Iterator[Path]:
    """Create a temporary folder, removing leftovers of a killed process; removed at the end."""
    shutil.rmtree(folder, ignore_errors=True)  # a link is kept, and rejected by the next line
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _archive(one: Download) -> Path:
    """Where the file is kept until it is unpacked, and longer if another one fails."""
    key = one.sha256 or sha256(one.url.encode()).hexdigest()
    return rtdetr_home() / "downloads" / key


def _download(one: Download, config: DatasetConfig, limit: int) -> Path:
    """Download one file; a file with more than `limit` bytes only if the user agrees."""
    url = _address(one.url, config)
    shown, name = printable(url, 200), Path(urlsplit(url).path).name
    if name.lower().endswith(_OTHER_ARCHIVES):
        raise DataError(
            f"{shown} is not a zip or tar archive; unpack it into {config.path} yourself"
        )
    archive, most = _archive(one), one.num_bytes or MAX_BYTES
    try:
        try:
            download(url, archive, one.sha256, min(limit, most), label=name)
        except OversizeError as error:
            if limit >= most:
                raise
            _agree(config, f"{error.num_bytes / 1e9:.1f} GB")
            download(url, archive, one.sha256, most, label=name)
        hold_to_sum(archive, archive, one.sha256)
    except DownloadError as error:
        raise DataError(f"{shown} could not be downloaded ({error}); {_by_hand(config)}") from None
    return archive


def _put(one: Download, archive: Path, half: Path, config: DatasetConfig) -> None:
    """Unpack an archive, or copy a file, into the temporary folder."""
    name, target = Path(urlsplit(one.url).path).name, half / (one.to or ".")
    strip, shown = "" if one.to else config.path.name, printable(name, 80)
    try:
        if name.lower().endswith(".tar") and is_tar(archive):
            unpack_tar(archive, target, strip, shown)
        elif is_zip(archive):
            unpack(archive, target, strip, shown)
        else:
            _copy(archive, target, name)
    except DataError:
        discard(archive)
        raise


def _copy(file: Path, target: Path, name: str) -> None:
    shown = printable(name, 80)
    if name.lower().endswith((".zip", ".tar")):
        raise DataError(f"{shown} is not a {name[-3:].lower()} archive despite its URL")
    if not name or fault(name) or name.lower().endswith(PROGRAMS):
        raise DataError(f"'{shown}' is not allowed as a file name in a data set")
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target / name)


def _drop(one: Download, archive: Path) -> None:
    """Delete an unpacked archive; the checksum at first use stays if none is published."""
    if one.sha256:
        discard(archive)
    else:
        archive.unlink(missing_ok=True)

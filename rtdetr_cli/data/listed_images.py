"""Images that are fetched one by one from where they were published.

A table of cfg/datasets has the name, the size and the checksum of each image, and its labels.
download.py decides whether, from where and into which folder.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath

from rtdetr_cli.core.console import progress, say, warn
from rtdetr_cli.core.errors import DataError, DownloadError
from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.core.image import read_image
from rtdetr_cli.core.small_download import fetch_bytes

NUM_CONNECTIONS = 8
LINE_EVERY_S = 10.0
"""Seconds between lines of progress where there is no terminal."""
MAX_IMAGE_BYTES = 1 << 25
"""32 MiB; the largest image of COCO has 0.6 MB."""


@dataclass(frozen=True)
class ListedImage:
    """One image of the table."""

    place: PurePosixPath
    """Below the folder of the data set: images/train/000000000009.jpg."""
    size_hw: tuple[int, int]
    sha256: str
    labels: str
    """Text of its label file, a line for each box; empty: it has none."""

    def keep(self, content: bytes, folder: Path) -> str | None:
        """Verify an image and write it into the folder of the data set.

        Returns:
            The SHA-256 if it is another one than recorded.

        Raises:
            DataError: it does not decode, or has another size.
            StorageError: no space left or no permission.
        """
        with atomic_write(folder / self.place) as temporary:
            temporary.write_bytes(content)
            try:
                height, width = read_image(temporary).shape[:2]
            except DataError as error:
                reason = str(error).removeprefix(f"{temporary}: ")
                raise DataError(f"{self.place.name} {reason}") from None
            if (height, width) != self.size_hw:
                expected = f"{self.size_hw[1]}x{self.size_hw[0]}"
                raise DataError(f"{self.place.name} has {width}x{height} pixels, not {expected}")
        found = sha256(content).hexdigest()
        return found if found != self.sha256 else None

    def is_in(self, folder: Path) -> bool:
        """Whether the folder of the data set has exactly this image."""
        path = folder / self.place
        return path.is_file() and sha256(path.read_bytes()).hexdigest() == self.sha256


def read_table(path: Path) -> list[ListedImage]:
    """Read a table: a line for each image, and below it one for each of its boxes."""
    found: list[tuple[str, list[str]]] = []
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("images/"):
            found.append((line, []))
        elif not line.startswith("#"):
            found[-1][1].append(f"{line}\n")
    return [_listed(head.split(), "".join(rows)) for head, rows in found]


def _listed(head: list[str], labels: str) -> ListedImage:
    place, width, height, checksum = head
    return ListedImage(PurePosixPath(place), (int(height), int(width)), checksum, labels)


def fetch_images(images: list[ListedImage], url: str, folder: Path, label: str) -> None:
    """Fetch images from `url` + name, several at once; on a failure the others are kept.

    Raises:
        DownloadError: the server is not reached or refuses.
        DataError: an image does not decode or has another size.
        StorageError: no space left or no permission.
    """
    pool, due = ThreadPoolExecutor(NUM_CONNECTIONS), time.monotonic() + LINE_EVERY_S
    try:
        jobs = [pool.submit(_fetch_one, image, url, folder) for image in images]
        done = progress(as_completed(jobs), len(jobs), f"{label}, images")
        for number, job in enumerate(done, 1):
            warn_of_other(*job.result())
            if time.monotonic() > due and not sys.stderr.isatty():
                due = time.monotonic() + LINE_EVERY_S
                say(f"{label}: {number} of {len(jobs)} images")
    finally:
        pool.shutdown(cancel_futures=True)


def _fetch_one(image: ListedImage, url: str, folder: Path) -> tuple[ListedImage, str | None]:
    try:
        content = fetch_bytes(f"{url}{image.place.name}", MAX_IMAGE_BYTES)
    except DownloadError as error:
        raise DownloadError(f"{image.place.name}: {error}") from None
    return image, image.keep(content, folder)


def warn_of_other(image: ListedImage, found: str | None) -> None:
    """Name an image that is right in every way but its checksum."""
    if found:
        warn(
            f"{image.place.name} is not the recorded file (SHA-256 {found[:16]}... instead of "
            f"{image.sha256[:16]}...); it decodes and has the right size, so it is used"
        )


def write_labels(images: Iterable[ListedImage], folder: Path) -> None:
    """Write labels/train/1.txt for images/train/1.jpg."""
    for image in images:
        if image.labels:
            place = image.place.relative_to("images").with_suffix(".txt")
            path = folder / "labels" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(image.labels, encoding="utf-8", newline="\n")

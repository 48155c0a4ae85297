"""The decoded images of a split: read from their files, or cached in memory or on disk.

The cache holds the full upright images. Each is decoded on first use and again when the time or
size of its file changes, so that batches are the same with any cache.
"""

from __future__ import annotations

import hashlib
import mmap
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from rtdetr_cli.core.errors import BackendError, DataError, StorageError
from rtdetr_cli.core.files import atomic_write, rtdetr_home
from rtdetr_cli.core.image import Pixels, read_image
from rtdetr_cli.core.memory import free_memory
from rtdetr_cli.data.dataset import Record

_USABLE_MEMORY = 0.8
"""Fraction of the free memory that a cache may use; the network needs some, too."""
_GB = 1e9


class Images:
    """Images by their position in the split, decoded on each access."""

    def __init__(self, records: list[Record]) -> None:
        self._records = records

    def read(self, position: int) -> Pixels:
        """Read one image, (H, W, 3) uint8 RGB, upright; must not be modified.

        Raises:
            DataError: it cannot be read, or is not of the annotated size.
            StorageError: it cannot be cached.
        """
        return read_record_image(self._records[position])


class ImagesInMemory(Images):
    """Images in memory shared by all workers of a loader."""

    def __init__(self, records: list[Record]) -> None:
        super().__init__(records)
        self._ends = np.cumsum([_num_bytes(record) for record in records])
        self._pixels = _shared_memory(int(self._ends[-1]))
        # Time and size of each decoded file, zeros if not decoded. The lock ensures that other
        # processes see the pixels before the stamp.
        self._stamps = _shared_memory(16 * len(records)).view(torch.int64).view(-1, 2)
        self._lock = multiprocessing.Lock()

    def read(self, position: int) -> Pixels:
        """Read one image, from memory if cached."""
        record = self._records[position]
        stamp = _stamp(record.path)
        end = int(self._ends[position])
        place = self._pixels[end - _num_bytes(record) : end].view(*record.size_hw, 3).numpy()
        with self._lock:
            is_kept = self._stamps[position].tolist() == stamp
        if not is_kept:
            place[...] = read_record_image(record)
            with self._lock:
                self._stamps[position] = torch.tensor(stamp)
        return place


class ImagesOnDisk(Images):
    """Images as .npy files in RTDETR_HOME/cache/images, shared by all runs and processes."""

    def read(self, position: int) -> Pixels:
        """Read one image, from the disk if cached."""
        record = self._records[position]
        path = _kept_at(record)
        try:
            # mode "c": pages are read on access, and torch requires a writable array
            kept: Pixels = np.asarray(open_memmap(path, mode="c"))
        except (OSError, ValueError, EOFError):  # absent or damaged
            kept = np.empty(0, np.uint8)
        if kept.shape == (*record.size_hw, 3) and kept.dtype == np.uint8:
            return kept
        pixels = read_record_image(record)
        with atomic_write(path) as temporary:
            np.save(temporary, pixels)
        return pixels


def open_images(records: list[Record], cache: str, copies: int = 1) -> Images:
    """Open the images with a cache, after checking the free space.

    Args:
        records: the split.
        cache: off, ram or disk.
        copies: number of processes on this machine that each cache all images in memory.

    Raises:
        BackendError: not enough memory.
        StorageError: not enough disk space.
    """
    if cache == "ram":
        _check_memory(records, copies)
        return ImagesInMemory(records)
    if cache == "disk":
        _check_disk(records)
        return ImagesOnDisk(records)
    return Images(records)


def read_record_image(record: Record) -> Pixels:
    """Decode the file of a record in training, validation or check, which have `bad_images`.

    Raises:
        DataError: it cannot be read, or is not of the annotated size.
    """
    try:
        return decode_record(record)
    except DataError as error:
        raise DataError(f"{error}; bad_images=skip leaves such images out") from error


def decode_record(record: Record) -> Pixels:
    """As `read_record_image`, and the error names no key."""
    image = read_image(record.path)
    if image.shape[:2] != record.size_hw:
        found, stated = image.shape[:2], record.size_hw
        raise DataError(
            f"{record.path}: the upright image is {found[1]}x{found[0]} pixels, "
            f"but its annotations state {stated[1]}x{stated[0]}"
        )
    return image


def _num_bytes(record: Record) -> int:
    height, width = record.size_hw
    return height * width * 3


def _stamp(path: Path) -> list[int]:
    """Modification time in nanoseconds and size in bytes."""
    try:
        status = path.stat()
    except OSError:
        raise DataError(f"{path}: no such image") from None
    return [status.st_mtime_ns, status.st_size]


def _kept_at(record: Record) -> Path:
    changed, size = _stamp(record.path)
    key = hashlib.sha256(f"{record.path.absolute()}\n{changed}\n{size}".encode()).hexdigest()[:32]
    return rtdetr_home() / "cache" / "images" / key[:2] / f"{key}.npy"


def _shared_memory(num_bytes: int) -> Tensor:
    """Allocate zeros that this process shares with its workers.

    Forked workers inherit an anonymous map, which unlike torch's shared memory is not limited by
    the size of /dev/shm (64 MB in a container); spawned workers need torch's shared memory.
    """
    if multiprocessing.get_start_method() == "fork":
        memory: Tensor = torch.frombuffer(mmap.mmap(-1, num_bytes), dtype=torch.uint8)
    else:
        memory = torch.zeros(num_bytes, dtype=torch.uint8).share_memory_()
    return memory


def _check_memory(records: list[Record], copies: int) -> None:
    needed, free = copies * sum(map(_num_bytes, records)), free_memory()
    if free is not None and needed > _USABLE_MEMORY * free:
        processes = f" in each of {copies} processes" if copies > 1 else ""
        raise BackendError(
            f"cache=ram needs {needed / _GB:.1f} GB for {len(records)} decoded images"
            f"{processes}, but {_USABLE_MEMORY * free / _GB:.1f} GB can be used "
            f"({_USABLE_MEMORY:.0%} of the free memory); use cache=disk or cache=off"
        )


def _check_disk(records: list[Record]) -> None:
    missing = [record for record in records if not _kept_at(record).exists()]
    needed, home = sum(map(_num_bytes, missing)), rtdetr_home().absolute()
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise StorageError(
            f"cache=disk needs {needed / _GB:.1f} GB for {len(missing)} decoded images, but "
            f"{free / _GB:.1f} GB are free at {home}; set RTDETR_HOME to a larger disk or use "
            "cache=off"
        )

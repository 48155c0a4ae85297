"""The decoded images of a split: from their files each time, kept in memory, or kept on disk.

What is kept is the whole upright image, as crops come from it. Each is decoded when it is first
wanted and again when its file has another time or size, so a loader gives the same batches with
any of the three.
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
"""Share of the free memory that a cache may take; the network needs some too."""
_GB = 1e9


class Images:
    """Images by their position in the split, decoded each time."""

    def __init__(self, records: list[Record]) -> None:
        self._records = records

    def read(self, position: int) -> Pixels:
        """One image, (H, W, 3) uint8 RGB, upright; not to be written into.

        Raises:
            DataError: it cannot be read, or is not of the annotated size.
            StorageError: it cannot be kept.
        """
        return read_picture(self._records[position])


class ImagesInMemory(Images):
    """Images in memory that all workers of a loader share."""

    def __init__(self, records: list[Record]) -> None:
        super().__init__(records)
        self._ends = np.cumsum([_num_bytes(record) for record in records])
        self._pixels = _shared_memory(int(self._ends[-1]))
        # Time and size of the file that was decoded, zeros where none was. The lock orders the
        # writing of pixels before that of the stamp for readers in other processes.
        self._stamps = _shared_memory(16 * len(records)).view(torch.int64).view(-1, 2)
        self._lock = multiprocessing.Lock()

    def read(self, position: int) -> Pixels:
        """One image, from memory where it is there."""
        record = self._records[position]
        stamp = _stamp(record.path)
        end = int(self._ends[position])
        place = self._pixels[end - _num_bytes(record) : end].view(*record.size_hw, 3).numpy()
        with self._lock:
            is_kept = self._stamps[position].tolist() == stamp
        if not is_kept:
            place[...] = read_picture(record)
            with self._lock:
                self._stamps[position] = torch.tensor(stamp)
        return place


class ImagesOnDisk(Images):
    """Images as .npy files in RTDETR_HOME/cache/images, for all runs and processes."""

    def read(self, position: int) -> Pixels:
        """One image, from the cache where it is there."""
        record = self._records[position]
        path = _kept_at(record)
        try:
            # "c": pages are read where they are touched, and torch wants an array it may write to
            kept: Pixels = np.asarray(open_memmap(path, mode="c"))
        except (OSError, ValueError, EOFError):  # absent or damaged
            kept = np.empty(0, np.uint8)
        if kept.shape == (*record.size_hw, 3) and kept.dtype == np.uint8:
            return kept
        pixels = read_picture(record)
        with atomic_write(path) as temporary:
            np.save(temporary, pixels)
        return pixels


def open_images(records: list[Record], cache: str, copies: int = 1) -> Images:
    """Choose how images are kept, after a look at the room there is.

    Args:
        records: the split.
        cache: off, ram or disk.
        copies: processes on this machine that each keep all images in memory.

    Raises:
        BackendError: the memory is too small.
        StorageError: the disk is too small.
    """
    if cache == "ram":
        _check_memory(records, copies)
        return ImagesInMemory(records)
    if cache == "disk":
        _check_disk(records)
        return ImagesOnDisk(records)
    return Images(records)


def read_picture(record: Record) -> Pixels:
    """Decode the file of a record.

    Raises:
        DataError: it cannot be read, or is not of the annotated size.
    """
    image = read_image(record.path)
    if image.shape[:2] != record.size_hw:
        found, said = image.shape[:2], record.size_hw
        raise DataError(
            f"{record.path}: the upright image is {found[1]}x{found[0]} pixels, "
            f"but its annotations say {said[1]}x{said[0]}"
        )
    return image


def _num_bytes(record: Record) -> int:
    height, width = record.size_hw
    return height * width * 3


def _stamp(path: Path) -> list[int]:
    """Time of the last change in nanoseconds, and size in bytes."""
    try:
        status = path.stat()
    except OSError:
        raise DataError(f"{path}: no such image") from None
    return [status.st_mtime_ns, status.st_size]


def _kept_at(record: Record) -> Path:
    changed, size = _stamp(record.path)
    key = hashlib.sha256(f"{record.path.absolute()}\n{changed}\n{size}".encode()).hexdigest()[:32]
    return rtdetr_home() / "cache" / "pictures" / key[:2] / f"{key}.npy"


def _shared_memory(num_bytes: int) -> Tensor:
    """Zeros that this process and its workers see alike.

    Forked workers inherit an anonymous map, which is not bound to the size of /dev/shm (64 MB in
    a container) as torch's shared memory is; spawned ones can only be handed the latter.
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

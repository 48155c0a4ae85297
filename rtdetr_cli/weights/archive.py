"""Read a torch zip archive: the inert tree of its pickle, and tensors from its entries.

Before anything is allocated, every size in the pickle is checked against the archive, and every
size in the archive against the file. Reading a file takes at most twice its size plus a constant:
MAX_TREE_BYTES for the tree, ten times MAX_DIRECTORY_BYTES, and SLACK_BYTES.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtdetr_cli.config.model_path import why_foreign
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.weights.safe_pickle import (
    MAX_PICKLE_BYTES,
    Inert,
    Record,
    Reference,
    StoredTensor,
    fits,
    load_inert,
    shown,
)

MAX_DIRECTORY_BYTES = 2 * 2**20
"""Zip directory; 7500 entries, more than any RT-DETR training checkpoint has, take 0.7 MB."""

SLACK_BYTES = 16 * 2**20
"""Allowance for the storage of the tensor being read; the largest of RT-DETR-H has 9 MB."""

MAX_DEPTH = 64
_CHUNK_BYTES = 2**20
_TAIL_BYTES = 2**17  # twice what zipfile searches for the end of the directory

# Raised by zipfile on damaged archives; RuntimeError on encrypted and unsupported ones.
_DAMAGE = (
    zipfile.BadZipFile,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    OverflowError,
    RuntimeError,
    struct.error,
)

_DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}


_ENCRYPTED = 0x1


class TorchArchive:
    """An open checkpoint file, for use in a `with` statement.

    Attributes:
        tree: contents of the file as inert data: plain values, `Record`, `StoredTensor`.
    """

    def __init__(self, path: Path) -> None:
        self.origin = path.name
        try:
            self._raw = _ShortReads(io.FileIO(path))
        except FileNotFoundError:
            raise WeightsError(f"{path} {why_foreign(path) or 'does not exist'}") from None
        except OSError as error:
            raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None
        try:
            self._file = self._open()
            file_size = path.stat().st_size
            self._unspent = 2 * file_size + SLACK_BYTES  # bytes left for tensors
            self._seen: set[str] = set()  # storages already read
            self._entries = self._checked_entries(file_size)
            self._prefix = self._find_prefix()
            self.tree = self._read_tree()
        except WeightsError:
            self._raw.close()
            raise

    def __enter__(self) -> TorchArchive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._raw.close()

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self._raw)
        except (*_DAMAGE, OSError) as error:
            raise WeightsError(f"{self.origin} is damaged: {_sentence(error)}") from None

    def tensor(self, stored: StoredTensor, dtype: torch.dtype | None = None) -> Tensor:
        """Read a stored tensor into its own memory; floating-point ones as `dtype`, if given."""
        own_dtype, entry, length = self._storage(stored)
        size, stride, offset = _integers(stored, self.origin)
        count = prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if count > length or (count and last >= length):
            raise WeightsError(f"{self.origin} is damaged: a tensor is larger than its storage")
        wanted = dtype if dtype is not None and own_dtype.is_floating_point else own_dtype
        self._spend(entry, count * max(own_dtype.itemsize, min(wanted.itemsize, 4)))
        if not count:
            return torch.empty(size, dtype=wanted)
        storage = self._read_storage(entry).view(own_dtype)
        data = storage.as_strided(size, stride, offset)
        is_whole = count == length and data.is_contiguous()
        return data.to(wanted, copy=not is_whole, memory_format=torch.contiguous_format)

    def _spend(self, entry: str, made: int) -> None:
        """Charge the bytes of a tensor to the budget.

        Its storage is temporary and free the first time; each further read of it is charged.
        """
        read = self._entries[self._prefix + entry].file_size
        if made + read > self._unspent:
            raise WeightsError(f"{self.origin} is damaged: its tensors are larger than the file")
        self._unspent -= made + (read if entry in self._seen else 0)
        self._seen.add(entry)

    def materialise(self, tree: Inert, dtype: torch.dtype | None = None) -> Inert:
        """Copy a subtree of containers and plain values, with its tensors read."""
        return self._materialise(tree, dtype, {}, 0)

    def _materialise(
        self,
        node: Inert,
        dtype: torch.dtype | None,
        made: dict[int, Any],
        depth: int,
    ) -> Inert:
        """`made` maps the id of each node to its copy, so that shared nodes are copied once."""
        if depth > MAX_DEPTH:
            raise WeightsError(f"{self.origin} is nested deeper than {MAX_DEPTH} levels")
        if isinstance(node, Record | Reference):
            raise WeightsError(f"{self.origin} holds a {shown(node.name)} instead of a plain value")
        if not isinstance(node, StoredTensor | dict | list | tuple):
            return node
        if id(node) not in made:
            if isinstance(node, StoredTensor):
                made[id(node)] = self.tensor(node, dtype)
            elif isinstance(node, dict):
                made[id(node)] = {
                    key: self._materialise(value, dtype, made, depth + 1)
                    for key, value in node.items()
                }
            else:
                made[id(node)] = type(node)(
                    self._materialise(value, dtype, made, depth + 1) for value in node
                )
        return made[id(node)]

    def _checked_entries(self, file_size: int) -> dict[str, zipfile.ZipInfo]:
        """The archive's entries, if uncompressed and together no larger than the file."""
        entries = {info.filename: info for info in self._file.infolist()}
        if len(entries) < len(self._file.infolist()):
            raise WeightsError(f"{self.origin} is damaged: an entry appears twice")
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
            raise WeightsError(f"{self.origin} is compressed; torch checkpoints are not")
        if any(info.flag_bits & _ENCRYPTED for info in entries.values()):
            raise WeightsError(f"{self.origin} is encrypted; torch checkpoints are not")
        if sum(max(e.file_size, e.compress_size) for e in entries.values()) > file_size:
            raise WeightsError(f"{self.origin} is damaged: its entries are larger than the file")
        return entries

    def _find_prefix(self) -> str:
        roots = [name[: -len("data.pkl")] for name in self._entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise WeightsError(f"{self.origin} is a zip archive but not a torch checkpoint")
        return roots[0]

    def _read_tree(self) -> Inert:
        order = f"{self._prefix}byteorder"
        if order in self._entries and self._read("byteorder") != b"little":
            raise WeightsError(f"{self.origin} was written on a big-endian machine")
        return load_inert(self._read("data.pkl", MAX_PICKLE_BYTES), self.origin)

    def _read(self, name: str, limit: int | None = None) -> bytes:
        info = self._entries[self._prefix + name]
        if limit is not None and info.file_size > limit:
            raise WeightsError(f"{self.origin}: {name} is larger than in any model")
        return b"".join(self._chunks(info))

    def _read_storage(self, entry: str) -> Tensor:
        """Read the bytes of an entry into a new uint8 tensor."""
        info = self._entries[self._prefix + entry]
        storage = torch.empty(info.file_size, dtype=torch.uint8)
        window, filled = storage.numpy().data, 0
        for chunk in self._chunks(info):
            window[filled : filled + len(chunk)] = chunk
            filled += len(chunk)
        return storage

    def _chunks(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """Yield an entry in chunks; check its length and checksum."""
        unread = info.file_size
        try:
            with self._file.open(info) as entry:
                while chunk := entry.read(_CHUNK_BYTES):
                    unread -= len(chunk)
                    yield chunk
        except (*_DAMAGE, OSError) as error:
            raise WeightsError(f"{self.origin} is damaged: {_sentence(error)}") from None
        if unread:
            raise WeightsError(f"{self.origin} is damaged: an entry is truncated")

    def _storage(self, stored: StoredTensor) -> tuple[torch.dtype, str, int]:
        """dtype, entry name and length of a tensor's storage, checked against the archive."""
        match stored.storage:
            case ("storage", Reference(name=kind), str(key), _, length) if kind in _DTYPES:
                pass
            case _:
                raise WeightsError(f"{self.origin} holds a tensor of an unsupported kind")
        info = self._entries.get(f"{self._prefix}data/{key}")
        dtype = _DTYPES[kind]
        wanted = length * dtype.itemsize if type(length) is int and fits(length) else None
        if info is None or info.file_size != wanted:
            raise WeightsError(
                f"{self.origin} is damaged: storage {shown(key)} should have {wanted} "
                f"bytes and has {info.file_size if info else 0}"
            )
        return dtype, f"data/{key}", length


class _ShortReads(io.BufferedReader):
    """A file that refuses large reads.

    zipfile reads the whole directory, and builds objects ten times its size, before the caller can
    check how large it is.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most MAX_DIRECTORY_BYTES; without a size, no more than the tail of a zip.

        Raises:
            BadZipFile: `size` is larger.
        """
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile("its directory is larger than in any checkpoint")
        return super().read(_TAIL_BYTES if size is None or size < 0 else size)


def _integers(stored: StoredTensor, origin: str) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Size, stride and offset, checked to be consistent non-negative integers."""
    size, stride, offset = stored.size, stored.stride, stored.offset
    if (
        not isinstance(size, tuple)
        or not isinstance(stride, tuple)
        or len(size) != len(stride)
        or len(size) > MAX_DEPTH
        or any(type(n) is not int or not 0 <= n < 2**62 for n in (*size, *stride, offset))
        or prod(n for n in size if n) >= 2**62
    ):
        raise WeightsError(f"{origin} is damaged: a tensor has an impossible shape")
    return size, stride, offset


def _sentence(error: BaseException) -> str:
    return str(error).split("\n")[0].rstrip(".") or type(error).__name__

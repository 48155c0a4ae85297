"""Weights that an ONNX file keeps in other files: found before a runtime opens them.

Releases of ONNX Runtime before 1.24 open whatever path the file names.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rtdetr_cli.backends.onnx.session import needs_onnx_extra
from rtdetr_cli.core.errors import WeightsError

if TYPE_CHECKING:
    from google.protobuf.message import Message

_LOCATION = re.compile(rb"location")  # twice as fast as find() of a mapped file
"""The key of the path in a file that has such weights."""


def check_file(path: Path) -> None:
    """Check that a path is a file, and that all it refers to are files in its folder.

    Raises:
        WeightsError: it is none, damaged, or refers to something else.
    """
    if not path.is_file():
        raise WeightsError(f"{path} is no regular file")
    try:
        content = _content_with_location(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    folders = {path.parent.resolve(), path.resolve().parent}  # caches hold links to both
    for location in _locations(content, path) if content else ():
        file = _resolved(path.parent, location)
        if file is None or not any(file.is_relative_to(folder) for folder in folders):
            raise WeightsError(
                f"{path.name} takes weights from {location}, which is outside of its folder; "
                "only files beside it are read"
            )
        if not file.is_file():
            raise WeightsError(f"{path.name} takes weights from {location}, which is not beside it")


def _content_with_location(path: Path) -> bytes:
    """The file; empty where it cannot refer to others."""
    if not path.stat().st_size:
        return b""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return view[:] if _LOCATION.search(view) else b""


def _resolved(folder: Path, location: str) -> Path | None:
    """The file that is meant, links followed; None for what cannot be a path."""
    try:
        return None if Path(location).is_absolute() else (folder / location).resolve()
    except (ValueError, OSError, RuntimeError):
        return None


def _locations(content: bytes, path: Path) -> Iterator[str]:
    """Where the tensors of a model are, those of nodes and nested graphs among them."""
    with needs_onnx_extra():
        from google.protobuf.message import DecodeError
        from onnx import ModelProto, TensorProto
    try:
        model = ModelProto.FromString(content)
    except DecodeError as error:
        raise WeightsError(f"{path} cannot be opened as ONNX: {error}") from error
    for message in _messages(model):
        if isinstance(message, TensorProto) and message.data_location == TensorProto.EXTERNAL:
            yield from (one.value for one in message.external_data if one.key == "location")


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _messages(inner)

"""Check external weight files of an ONNX file before a runtime opens them.

ONNX Runtime before 1.24 opens any path that the file names.
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
"""Key of the path in files with external weights."""


def check_file(path: Path) -> None:
    """Check that a path is a file, and that all external weights are files in its folder.

    Raises:
        WeightsError: it is not a file, is damaged, or refers to a file elsewhere.
    """
    if not path.is_file():
        raise WeightsError(f"{path} is not a regular file")
    try:
        content = _content_with_location(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    folders = {path.parent.resolve(), path.resolve().parent}  # in caches both may be links
    for location in _locations(content, path) if content else ():
        file = _resolved(path.parent, location)
        if file is None or not any(file.is_relative_to(folder) for folder in folders):
            raise WeightsError(
                f"{path.name} reads weights from {location}, which is outside of its folder; "
                "only files beside it are allowed"
            )
        if not file.is_file():
            raise WeightsError(f"{path.name} reads weights from {location}, which is not beside it")


def _content_with_location(path: Path) -> bytes:
    """Content of the file; empty if it has no external weights."""
    if not path.stat().st_size:
        return b""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return view[:] if _LOCATION.search(view) else b""


def _resolved(folder: Path, location: str) -> Path | None:
    """Resolve a location, following links; None if it is not a valid relative path."""
    try:
        return None if Path(location).is_absolute() else (folder / location).resolve()
    except (ValueError, OSError, RuntimeError):
        return None


def _locations(content: bytes, path: Path) -> Iterator[str]:
    """Locations of all external tensors, including those of attributes and subgraphs."""
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

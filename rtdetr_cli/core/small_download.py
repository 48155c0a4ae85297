"""Fetch small files into memory, beside download.py, which resumes large ones on disk."""

from __future__ import annotations

import time

from rtdetr_cli.core.connection import HEADERS, connect, declared_length, read_block
from rtdetr_cli.core.download import PAUSES_S
from rtdetr_cli.core.errors import BrokenError, DownloadError, OversizeError

_BLOCK = 1 << 16


def fetch_bytes(url: str, max_bytes: int) -> bytes:
    """Fetch a file into memory; after a broken connection it starts again.

    Raises:
        DownloadError: no connection, a refusal of the server, more than `max_bytes`.
    """
    for pause in PAUSES_S:
        try:
            return _fetch_whole(url, max_bytes)
        except BrokenError:
            time.sleep(pause)
    try:
        return _fetch_whole(url, max_bytes)
    except BrokenError as error:
        raise DownloadError(str(error)) from None


def _fetch_whole(url: str, max_bytes: int) -> bytes:
    """One attempt."""
    with connect(url, HEADERS) as response:
        total = declared_length(response, max_bytes)
        content = bytearray()
        while block := read_block(response, min(_BLOCK, max_bytes + 1 - len(content))):
            content += block
            if len(content) > max_bytes:
                raise OversizeError(len(content))
    if total is not None and len(content) < total:
        raise BrokenError(f"the connection broke at {len(content):,} of {total:,} bytes")
    return bytes(content)

"""Addresses of YouTube's pages, resolved to the address of the video by yt-dlp, if it is installed.

yt-dlp is no dependency and no extra: the user decides whether the terms of the site allow its use.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from rtdetr_cli.core.download import OFFLINE, is_offline
from rtdetr_cli.core.errors import DataError, printable
from rtdetr_cli.media.addresses import WEB, Address, parse_address

_SITES = ("youtube.com", "youtu.be", "youtube-nocookie.com")
_FORMATS = (
    "bestvideo[protocol=https][height<=1080][vcodec^=avc1]",
    "bestvideo[protocol=https][height<=1080]",
    "best[protocol=https]",
    "best",
)
"""First of: a file of H.264, which every decoder reads, any file, with sound, a live stream."""


def is_video_page(address: Address) -> bool:
    """Whether an address is a page of YouTube."""
    host = (urlsplit(address.text).hostname or "").lower()
    return address.scheme in WEB and any(host == s or host.endswith(f".{s}") for s in _SITES)


def resolve_page(address: Address) -> Address:
    """The address of the video of a page, under the name of the page; it is valid for hours.

    Raises:
        DataError: yt-dlp is absent or finds no video, or RTDETR_OFFLINE is set.
    """
    if find_spec("yt_dlp") is None:
        raise DataError(f"{address.name}: pages of YouTube need yt-dlp: pip install yt-dlp")
    if is_offline():
        raise DataError(f"{address.name}: {OFFLINE} is set")
    found = parse_address(str(_information(address).get("url", "")))
    if found is None or found.scheme not in WEB:
        raise DataError(f"{address.name}: yt-dlp found no single video there")
    return replace(found, name=address.name)


def _information(address: Address) -> dict[str, Any]:
    """What yt-dlp finds; it has no `url` for a list of videos."""
    silent = logging.getLogger("rtdetr.yt_dlp")
    silent.addHandler(logging.NullHandler())
    silent.propagate = False
    options = {
        "format": "/".join(_FORMATS),
        "noplaylist": True,
        "quiet": True,
        "cachedir": False,
        "color": "no_color",
        "logger": silent,
    }
    yt_dlp = import_module("yt_dlp")
    try:
        with yt_dlp.YoutubeDL(options) as session:
            found: dict[str, Any] | None = session.extract_info(address.text, download=False)
    except yt_dlp.utils.YoutubeDLError as error:
        reason = printable(str(error).removeprefix("ERROR: "), 300)
        raise DataError(f"{address.name}: {reason}") from None
    return found or {}

"""Addresses of sources that are not files: web addresses, streams, cameras, screens.

A list of addresses may come from others, so an address is text with a known scheme and nothing
that FFmpeg would take for an option or another protocol. Passwords are never printed.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from rtdetr_cli.core.errors import DataError, printable

WEB = ("http", "https")
PROTOCOLS = {
    "rtsp": "rtsp,rtp,udp,tcp,tls,srtp,crypto",
    "rtsps": "rtsp,rtsps,rtp,udp,tcp,tls,srtp,crypto",
    "rtmp": "rtmp,tcp,tls",
    "rtmps": "rtmps,rtmp,tcp,tls",
    "tcp": "tcp",
    "udp": "udp",
    "rtp": "rtp,udp",
    "srt": "srt",
    "http": "http,https,tcp,tls,crypto",
    "https": "https,tcp,tls,crypto",
}
"""Schemes of streams, with the protocols that FFmpeg may use for them; files are in none."""
MAX_STREAMS = 64
"""Most lines of a .streams file."""
_MAX_LENGTH = 2000


@dataclass(frozen=True)
class Address:
    """One address.

    Attributes:
        text: as given, with its password; a number for a camera, `screen ...` for a screen.
        scheme: `camera`, `screen`, or that of the URL.
        name: without user name and password, for output.
    """

    text: str
    scheme: str
    name: str

    @property
    def suffix(self) -> str:
        """Lower-case suffix of the path of a URL."""
        return Path(urlsplit(self.text).path).suffix.lower()

    def split_password(self) -> tuple[str, str]:
        """The URL without user name and password, and the value of the header Authorization."""
        parts = urlsplit(self.text)
        if "@" not in parts.netloc:
            return self.text, ""
        pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        return self.name, f"Basic {base64.b64encode(pair.encode()).decode()}"


def parse_address(text: str) -> Address | None:
    """Read an address; None if the text is a path.

    Raises:
        DataError: the scheme is not supported, or the address is malformed.
    """
    text = text.strip()
    if re.fullmatch(r"\d{1,3}", text):
        return Address(text, "camera", f"camera {text}")
    if re.fullmatch(r"screen(\s+\d+)*", text):
        return Address(text, "screen", " ".join(text.split()))
    scheme, separator, _ = text.partition("://")
    if not separator:
        return None
    shown = printable(_without_password(text), 200)
    if scheme.lower() not in PROTOCOLS:
        raise DataError(f"{shown}: {scheme}:// is not supported; expected {', '.join(PROTOCOLS)}")
    try:
        parts = urlsplit(text)
        is_valid = bool(parts.hostname or parts.port) and text.isprintable() and " " not in text
    except ValueError:
        is_valid = False
    if not is_valid or len(text) > _MAX_LENGTH:
        raise DataError(f"{shown}: is not a valid address")
    return Address(text, scheme.lower(), _without_password(text))


def read_streams_file(path: Path) -> list[Address]:
    """Read a .streams file: an address per line; blank lines and `#` comments are skipped.

    Raises:
        DataError: it cannot be read, a line is no address, or there are none or too many.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of streams") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            address = parse_address(line)
        except DataError as error:
            raise DataError(f"{path}:{number}: {error}") from None
        if address is None:
            raise DataError(f"{path}:{number}: {line.strip()} is not an address or camera number")
        found.append(address)
        if len(found) > MAX_STREAMS:
            raise DataError(f"{path}: more than {MAX_STREAMS} streams")
    if not found:
        raise DataError(f"{path}: the list is empty")
    return found


def _without_password(text: str) -> str:
    try:
        parts = urlsplit(text)
    except ValueError:
        return re.sub(r"//[^/]*@", "//", text)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

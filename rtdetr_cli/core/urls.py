"""Web addresses written by strangers, in the ASCII form that a request needs."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote, urlsplit, urlunsplit

MAX_LENGTH = 2000
"""Characters; many servers refuse longer ones."""


def ascii_url(url: str) -> str:
    """An http(s) address with its host in IDNA and its path and query percent-encoded.

    What is percent-encoded already stays; a fragment is left out.

    Raises:
        ValueError: what an address must be and this one is not, as the end of a sentence.
    """
    if len(url) > MAX_LENGTH:
        raise ValueError(f"must have at most {MAX_LENGTH} characters")
    if not url.isprintable() and any(unicodedata.category(c) in {"Cc", "Cs"} for c in url):
        raise ValueError("must hold no control characters")
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode("ascii")
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:  # UnicodeError of the host's labels is one
        raise ValueError("must be a web address") from None
    if parts.scheme not in {"http", "https"}:
        raise ValueError("must begin with https:// or http://")
    if not re.fullmatch(r"[A-Za-z0-9_.:-]+", host):
        raise ValueError("must name a server")
    if "@" in parts.netloc:
        raise ValueError("must hold no user name or password")
    place = f"[{host}]{port}" if ":" in host else f"{host}{port}"
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~")
    return urlunsplit((parts.scheme, place, path, quote(parts.query, safe="/%:@!$&'()*+,;=~?"), ""))

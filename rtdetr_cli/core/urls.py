"""Validation of untrusted URLs and conversion to the ASCII form of a request."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote, urlsplit, urlunsplit

MAX_LENGTH = 2000
"""Characters; many servers reject longer URLs."""


def ascii_url(url: str) -> str:
    """Encode the host of an http(s) URL as IDNA and percent-encode its path and query.

    Existing percent-encoding is kept; a fragment is removed.

    Raises:
        ValueError: the violated requirement, as the end of a sentence.
    """
    if len(url) > MAX_LENGTH:
        raise ValueError(f"must have at most {MAX_LENGTH} characters")
    if not url.isprintable() and any(unicodedata.category(c) in {"Cc", "Cs"} for c in url):
        raise ValueError("must not contain control characters")
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
        raise ValueError("must not contain a user name or password")
    place = f"[{host}]{port}" if ":" in host else f"{host}{port}"
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~")
    return urlunsplit((parts.scheme, place, path, quote(parts.query, safe="/%:@!$&'()*+,;=~?"), ""))

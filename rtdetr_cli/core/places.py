"""Validation of untrusted relative paths from archives, data set YAMLs and URLs."""

from __future__ import annotations

import unicodedata

MAX_PART, MAX_PLACE = 240, 1000
"""Limits in bytes of one name and of a path; file systems allow 255 and 4,096, Windows less."""
_RESERVED = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{device}{number}" for device in ("COM", "LPT") for number in "0123456789¹²³"
}


def fault(place: str) -> str | None:
    """Explain, as the end of a sentence, why a relative path is unsafe or not portable.

    Returns:
        None if the path is valid on all systems and stays inside its folder.
    """
    parts = [part for part in place.split("/") if part not in {"", "."}]
    if place.startswith("/") or ".." in parts or "\\" in place or ":" in place:
        return "leads out of its folder"
    if not place.isprintable() and any(unicodedata.category(c) in {"Cc", "Cs"} for c in place):
        return "holds control characters"
    if len(place.encode()) > MAX_PLACE or any(len(part.encode()) > MAX_PART for part in parts):
        return "is too long"
    if any(part.partition(".")[0].rstrip().upper() in _RESERVED for part in parts):
        return "is a name that Windows reserves"
    if any(part.endswith((".", " ")) for part in parts):
        return "ends in a dot or a space"
    return None


def folded(place: str) -> str:
    """Fold case and Unicode composition, which some file systems ignore."""
    if place.isascii():
        return place.lower()
    decomposed = unicodedata.normalize("NFKD", place).casefold()
    return unicodedata.normalize("NFKC", decomposed)

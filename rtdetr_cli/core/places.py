"""Relative places named by strangers: in archives, in data set YAMLs, in addresses."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

MAX_PART, MAX_PLACE = 240, 1000
"""Bytes of one name and of a whole place; file systems allow 255 and 4,096, Windows less."""
_RESERVED = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{device}{number}" for device in ("COM", "LPT") for number in "0123456789¹²³"
}


def fault(place: str) -> str | None:
    """Why a place cannot be written below any folder on every system, as the end of a sentence.

    Returns:
        None for a place that stays below the folder it counts from.
    """
    path = PurePosixPath(place)
    if path.is_absolute() or ".." in path.parts or any(letter in place for letter in "\\:"):
        return "leads out of its folder"
    if any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in place):
        return "holds control characters"
    if len(place.encode()) > MAX_PLACE or any(len(part.encode()) > MAX_PART for part in path.parts):
        return "is too long"
    if any(part.partition(".")[0].rstrip().upper() in _RESERVED for part in path.parts):
        return "is a name that Windows reserves"
    if any(part[-1] in ". " for part in path.parts):
        return "ends in a dot or a space"
    return None


def folded(place: str) -> str:
    """The same text for places that some file system takes for one: case, Unicode composition."""
    if place.isascii():
        return place.lower()
    decomposed = unicodedata.normalize("NFKD", place).casefold()
    return unicodedata.normalize("NFKC", decomposed)

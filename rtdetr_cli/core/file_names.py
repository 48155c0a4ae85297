"""File and folder names derived from class and image names.

They are valid on all common file systems (255 bytes; reserved names and characters of Windows).
Different class names get different folders, even on file systems that ignore case and accents.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache

MAX_BYTES = 200
"""Leaves room for a number, a suffix and the process id of a temporary name."""
_UNSAFE = re.compile(r'[<>:"/\\|?*]|^[. ]+|[. ]+$')
_RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\.|$)", re.IGNORECASE
)
"""Device names on Windows, with any suffix."""


def safe_name(text: str) -> str:
    """Convert text to a file or folder name; characters that are not allowed become `_`."""
    visible = "".join(letter if letter.isprintable() else "_" for letter in text[: MAX_BYTES + 1])
    name = unicodedata.normalize("NFC", visible).encode()[:MAX_BYTES].decode(errors="ignore")
    name = _UNSAFE.sub("_", name) or "_"
    return f"_{name}" if _RESERVED.match(name) else name


def same_name(name: str) -> str:
    """Return a key that is equal for names that some file system treats as the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def class_folders(names: Mapping[int, str]) -> dict[int, str]:
    """Return a folder name per class; the index is appended if the name is taken."""
    return dict(_folders(tuple(sorted(names.items()))))


@lru_cache(maxsize=4)  # called for each image
def _folders(names: tuple[tuple[int, str], ...]) -> dict[int, str]:
    folders: dict[int, str] = {}
    taken: set[str] = set()
    for index, text in names:
        folder = safe_name(text)
        while same_name(folder) in taken:
            folder = f"{folder}-{index}"
        taken.add(same_name(folder))
        folders[index] = folder
    return folders

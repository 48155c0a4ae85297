"""File and folder names made of other texts: class names, names of images.

They are valid on every usual file system (255 bytes; Windows' reserved names and letters), and two
texts that differ get names that differ even where case and accents do not count.
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
"""Devices on Windows, whatever suffix they have."""


def safe_name(text: str) -> str:
    """A text as the name of a file or folder; what it cannot hold becomes `_`."""
    visible = "".join(letter if letter.isprintable() else "_" for letter in text[: MAX_BYTES + 1])
    name = unicodedata.normalize("NFC", visible).encode()[:MAX_BYTES].decode(errors="ignore")
    name = _UNSAFE.sub("_", name) or "_"
    return f"_{name}" if _RESERVED.match(name) else name


def same_name(name: str) -> str:
    """A key that is equal for names that some file system takes for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def class_folders(names: Mapping[int, str]) -> dict[int, str]:
    """A folder for each class; the index is added where another class has the name already."""
    return dict(_folders(tuple(sorted(names.items()))))


@lru_cache(maxsize=4)  # asked for each image
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

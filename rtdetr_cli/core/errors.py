"""Everything that can go wrong and that the user can mend.

RTDETRError               exit code 1, never raised itself
 ├─ UsageError            2  a key, a value or a settings file is wrong
 │   └─ ConfigError       2  a YAML file is missing, broken or says something impossible
 ├─ DataError             3  a data set, a label or a picture
 ├─ WeightsError          4  a checkpoint: absent, damaged, foreign, of another architecture
 └─ BackendError          5  export, a runtime, a device
     └─ StorageError      5  no space left, no permission to write

The message is one sentence: what was found, where, what was expected, the nearest valid value.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RTDETRError(Exception):
    """Base of all errors that end a command with one sentence instead of a traceback."""

    exit_code = 1


class UsageError(RTDETRError):
    """A key is unknown, a value has the wrong type or is out of range."""

    exit_code = 2


class ConfigError(UsageError):
    """A settings, architecture or data set YAML is missing, broken or inconsistent."""


class DataError(RTDETRError):
    """A data set, a label file or a picture cannot be used."""

    exit_code = 3


class WeightsError(RTDETRError):
    """A checkpoint is absent, damaged, unsafe or does not fit the architecture.

    The sentence may quote a stranger's file, so it is made one printable line.
    """

    exit_code = 4

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(sentence))


class BackendError(RTDETRError):
    """A device, a runtime or an export failed."""

    exit_code = 5


class StorageError(BackendError):
    """A file could not be written: disk full, no permission."""


def printable(text: str, limit: int = 600) -> str:
    """A text of a stranger as one line without control characters, cut to `limit` characters."""
    line = "".join(letter if letter.isprintable() else " " for letter in text[: limit + 1])
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint `; did you mean X?` for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""

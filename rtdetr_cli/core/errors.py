"""Errors that the user can fix.

RTDETRError               exit code 1, never raised directly
 ├─ QualityError          1  a metric meets fail_if, or no setting of tradeoff its limits
 ├─ UsageError            2  a key, a value or a settings file is wrong
 │   └─ ConfigError       2  a YAML file is missing, broken or inconsistent
 ├─ DataError             3  a data set, a label or an image
 ├─ WeightsError          4  a checkpoint is missing, damaged, unknown or of another architecture
 └─ BackendError          5  export, a runtime, a device
     └─ StorageError      5  no space left, no permission to write

The message is one sentence: what was found, where, what was expected, the nearest valid value.
It may quote a third-party file, so it is reduced to one printable line.

DownloadError and BrokenError are of requests (connection.py); callers turn them into one of these.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from itertools import islice

from rtdetr_cli.core.findings import Finding

_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories of control characters, bidi overrides, lone surrogates, line separators."""
_JOINERS = "\u200c\u200d"
"""Kept although invisible: Persian and Indic scripts need them for correct spelling."""
_SHOWN = 300  # characters of a message from a server


class RTDETRError(Exception):
    """Base of all errors that end a command with a sentence instead of a traceback."""

    exit_code = 1

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(sentence, 1000))


class QualityError(RTDETRError):
    """A metric meets a condition of `fail_if`, or no setting of `tradeoff` is within its limits."""


class UsageError(RTDETRError):
    """A key is unknown, a value has the wrong type or is out of range."""

    exit_code = 2


class ConfigError(UsageError):
    """A settings, architecture or data set YAML is missing, broken or inconsistent."""


class DataError(RTDETRError):
    """A data set, a label file or an image cannot be used."""

    exit_code = 3
    problems: tuple[str, ...] = ()
    """All errors of a data set, if the message names the first of several."""
    findings: tuple[Finding, ...] = ()
    """The same by kind, and what was corrected, for `rtdetr check`."""


class WeightsError(RTDETRError):
    """A checkpoint is missing, damaged, unsafe or does not fit the architecture."""

    exit_code = 4


class BackendError(RTDETRError):
    """A device, a runtime or an export failed."""

    exit_code = 5


class StorageError(BackendError):
    """A file could not be written: disk full, no permission."""


class DownloadError(Exception):
    """A download failed; the caller adds a hint and the exit code."""

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(sentence, _SHOWN))


class OversizeError(DownloadError):
    """The file has more bytes than allowed, `num_bytes` or more; nothing was kept."""

    def __init__(self, num_bytes: int) -> None:
        super().__init__(f"{num_bytes / 1e6:.0f} MB exceed the limit for this file")
        self.num_bytes = num_bytes


class BrokenError(Exception):
    """A transient failure that is worth a retry; `code` is the HTTP status or 0."""

    def __init__(self, sentence: str, code: int = 0) -> None:
        super().__init__(printable(sentence, _SHOWN))
        self.code = code


def printable(text: str, limit: int = 600) -> str:
    r"""Reduce text to one line: control characters as `\x1b`, at most `limit` characters."""
    head = text[: limit + 1]
    line = head if head.isprintable() else "".join(map(_visible, head))
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def _visible(letter: str) -> str:
    if unicodedata.category(letter) not in _INVISIBLE or letter in _JOINERS:
        return letter
    return letter.encode("unicode_escape").decode()


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the hint `; did you mean X?` for the closest known name, or an empty string."""
    few = islice(known, 10_000) if len(name) <= 100 else ()  # quadratic time
    close = difflib.get_close_matches(name, list(few), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""

"""Read untrusted text within limits that are checked before parsing: files, JSON, literals.

YAML is in bounded_yaml.py, since importing its parser takes time.
"""

from __future__ import annotations

import ast
import json
import re
import reprlib
from pathlib import Path
from typing import Any

from rtdetr_cli.core.errors import printable
from rtdetr_cli.core.files import special_file

MAX_BYTES = 2**20
"""Size limit of a settings file or of metadata; the 21,841 class names of ImageNet take 0.6 MB."""
MAX_DEPTH = 32
"""Limit of nesting levels; the metadata of a checkpoint has 5."""
MAX_NODES = 100_000
"""Limit of values with keys; the class names of ImageNet are 43,682, twice that in config.json."""
MAX_DIGITS = 100
"""Digits of an integer: above the range of any field, so that the range is reported."""

_JSON_PARTS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{},:]', re.DOTALL)
_LITERAL = re.compile(
    r"\s*(?:(?P<text>'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\")"
    rf"|(?P<plain>\d{{1,{MAX_DIGITS}}}(?:\.\d{{1,{MAX_DIGITS}}})?|None|True|False)(?!\w)"
    r"|(?P<open>[\[({])|(?P<close>[\])}])|[,:])\s*"
)


class UnreadableFileError(ValueError):
    """A file cannot be read as text; the message continues a sentence that starts with its path."""


def read_bounded(path: Path | str, limit: int = MAX_BYTES) -> str:
    """Read a regular file of at most `limit` bytes as UTF-8, with or without a byte order mark.

    Raises:
        UnreadableFileError: it is missing, too large, not a regular file, or not UTF-8.
    """
    noun = special_file(path)
    if noun:  # opening a FIFO would block
        raise UnreadableFileError(f"is {noun}, expected a file")
    try:
        with Path(path).open("rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError:
        raise UnreadableFileError("does not exist") from None
    except OSError as error:
        raise UnreadableFileError(f"cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL or a lone surrogate
        raise UnreadableFileError("is not a valid file name") from None
    if len(content) > limit:
        raise UnreadableFileError(f"is larger than the limit of {limit / 2**20:g} MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"is not UTF-8 text (byte {error.start})") from None


def parse_json(text: str, limit: int = MAX_BYTES) -> Any:  # noqa: ANN401  (whatever it holds)
    """Decode JSON of at most `limit` characters, MAX_DEPTH levels and MAX_NODES values.

    Raises:
        json.JSONDecodeError: it is invalid or exceeds a limit; nothing was parsed.
    """
    if len(text) > limit:
        raise json.JSONDecodeError(f"longer than {limit} characters", text[:1], 0)
    depth = nodes = 0
    for part in _JSON_PARTS.finditer(text):
        letter = text[part.start()]
        depth += (letter in "[{") - (letter in "]}")
        nodes += letter in "[{,:"
        if depth > MAX_DEPTH:
            raise json.JSONDecodeError(f"more than {MAX_DEPTH} levels deep", text, part.start())
        if nodes > MAX_NODES:
            raise json.JSONDecodeError(f"more than {MAX_NODES} values", text, part.start())
    return parse_large_json(text)


def parse_large_json(text: str) -> Any:  # noqa: ANN401  (whatever it holds)
    """Decode JSON of any size, such as annotations of hundreds of megabytes.

    Raises:
        json.JSONDecodeError: it is invalid, nested too deeply, or a number has too many digits.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise json.JSONDecodeError("nested too deep", text[:1], 0) from None
    except ValueError:  # Python's limit of digits
        raise json.JSONDecodeError("a number with too many digits", text[:1], 0) from None


def parse_literal(text: str, limit: int = MAX_BYTES) -> Any:  # noqa: ANN401  (whatever it holds)
    """Parse a Python literal of lists, tuples, dicts, strings and numbers.

    Raises:
        ValueError: it contains anything else or exceeds a limit; nothing was parsed.
        SyntaxError: it is invalid.
    """
    if len(text) > limit:
        raise ValueError(f"longer than {limit} characters")
    place = depth = nodes = 0
    while place < len(text):
        part = _LITERAL.match(text, place)
        if part is None:
            raise ValueError(f"no plain value at position {place}")
        place, nodes = part.end(), nodes + 1
        depth += bool(part["open"]) - bool(part["close"])
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            raise ValueError(f"more than {MAX_DEPTH} levels or {MAX_NODES} values")
    return ast.literal_eval(text.strip())


class _Brief(reprlib.Repr):
    """`repr` of the first items only; the full text of a large value is never built."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 200, 200
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 20

    def repr_int(self, x: int, level: int) -> str:
        """All digits of a small integer, the size of a large one."""
        return repr(x) if abs(x) < 2**128 else f"a whole number of {x.bit_length()} bits"


_brief = _Brief()


def show(value: object, limit: int = 60) -> str:
    """Format a value for a message: short, strings in quotes."""
    text = _brief.repr(list(value) if type(value) is tuple else value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def show_key(key: object, limit: int = 60) -> str:
    """Format a key or name for a message: short, one line, without quotes."""
    return printable(key, limit) if isinstance(key, str) else show(key, limit)

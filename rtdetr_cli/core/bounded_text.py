"""Text from outside, bounded before anything is built: files, JSON, Python literals, messages.

YAML has a file of its own, bounded_yaml.py, since importing its parser takes time.
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
"""Of a settings file or of metadata; the 21,841 class names of ImageNet take 0.6 MB."""
MAX_DEPTH = 32
"""Levels of nesting; a checkpoint's description has 5."""
MAX_NODES = 100_000
"""Values, keys included; the class names of ImageNet are 43,682, twice that in a config.json."""
MAX_DIGITS = 100
"""Of a whole number: more than any field takes, so that the field's own range is what is named."""

_JSON_PARTS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{},:]', re.DOTALL)
_LITERAL = re.compile(
    r"\s*(?:(?P<text>'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\")"
    rf"|(?P<plain>\d{{1,{MAX_DIGITS}}}(?:\.\d{{1,{MAX_DIGITS}}})?|None|True|False)(?!\w)"
    r"|(?P<open>[\[({])|(?P<close>[\])}])|[,:])\s*"
)


class UnreadableFileError(ValueError):
    """A file cannot be read as text; the message ends a sentence that begins with its path."""


def read_bounded(path: Path | str, limit: int = MAX_BYTES) -> str:
    """The text of a regular file of at most `limit` bytes, in UTF-8 with or without a mark.

    Raises:
        UnreadableFileError: it is absent, larger, another kind of file, or no such text.
    """
    noun = special_file(path)
    if noun:  # opening a FIFO would wait for a writer
        raise UnreadableFileError(f"is {noun}, expected a file")
    try:
        with Path(path).open("rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError:
        raise UnreadableFileError("does not exist") from None
    except OSError as error:
        raise UnreadableFileError(f"cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL or a lone surrogate in it
        raise UnreadableFileError("is no name that a file can have") from None
    if len(content) > limit:
        raise UnreadableFileError(f"has more than {limit / 2**20:g} MiB, the most that is read")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"is not UTF-8 text (byte {error.start})") from None


def parse_json(text: str, limit: int = MAX_BYTES) -> Any:  # noqa: ANN401  (whatever it holds)
    """Decode JSON of at most `limit` characters, MAX_DEPTH levels and MAX_NODES values.

    Raises:
        json.JSONDecodeError: it is broken or beyond a limit; nothing was built.
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
    """Decode JSON that may have hundreds of megabytes, as annotations have.

    Raises:
        json.JSONDecodeError: it is broken, nested too deep, or a number has too many digits.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise json.JSONDecodeError("nested too deep", text[:1], 0) from None
    except ValueError:  # Python's own limit of digits
        raise json.JSONDecodeError("a number with too many digits", text[:1], 0) from None


def parse_literal(text: str, limit: int = MAX_BYTES) -> Any:  # noqa: ANN401  (whatever it holds)
    """Read lists, tuples and dicts of texts and numbers as Python writes them.

    Raises:
        ValueError: it holds something else or is beyond a limit; nothing was built.
        SyntaxError: it is broken.
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
    """`repr` of the first items only: the whole text of a large value is never made."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 200, 200
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 20

    def repr_int(self, x: int, level: int) -> str:
        """Digits, as far as a reader could count them."""
        return repr(x) if abs(x) < 2**128 else f"a whole number of {x.bit_length()} bits"


_brief = _Brief()


def show(value: object, limit: int = 60) -> str:
    """A value as it may stand in a message: short, texts in quotes."""
    text = _brief.repr(list(value) if type(value) is tuple else value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def show_key(key: object, limit: int = 60) -> str:
    """A key or a name as it may stand in a message: short, one line, without quotes."""
    return printable(key, limit) if isinstance(key, str) else show(key, limit)

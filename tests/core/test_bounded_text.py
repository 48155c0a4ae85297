"""Text from outside: what is read, and that what is not is refused before anything is built."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rtdetr_cli.core.bounded_text import (
    MAX_BYTES,
    MAX_NODES,
    UnreadableFileError,
    parse_json,
    parse_large_json,
    parse_literal,
    read_bounded,
    show,
    show_key,
)


def test_a_file_is_text_with_or_without_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffä".encode())
    assert read_bounded(path) == "ä"
    path.write_bytes(b"x" * MAX_BYTES)
    assert len(read_bounded(path)) == MAX_BYTES


def test_what_is_no_text_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"x" * (MAX_BYTES + 1))
    (tmp_path / "utf16").write_bytes("a: 1".encode("utf-16"))
    for name, words in (
        ("fifo", r"is a pipe \(FIFO\), expected a file"),
        ("large", "is larger than the limit of 1 MiB"),
        ("utf16", "is not UTF-8 text"),
        ("absent", "does not exist"),
        ("n" * 300, "cannot be read: File name too long"),
        (".", "cannot be read: Is a directory"),
        ("a\0b", "is not a valid file name"),
    ):
        with pytest.raises(UnreadableFileError, match=words):
            read_bounded(tmp_path / name)


def test_json_keeps_its_values() -> None:
    values = {"a": [1, 2.5, None, True, '"[{\\'], "b": {"c": "ä\n"}}
    assert parse_json(json.dumps(values)) == values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 33 + "]" * 33, "more than 32 levels deep"),
        ("[" * 500_000, "more than 32 levels deep"),
        ("[" + "1," * MAX_NODES + "1]", "more than 100000 values"),
        ('"' + "x" * MAX_BYTES, "longer than"),
        ("9" * 5000, "too many digits"),
        ('{"a": ', "Expecting value"),
        ('"' + '\\"' * 500_000, "Unterminated string"),
    ],
)
def test_json_beyond_a_limit_is_refused(text: str, words: str) -> None:
    with pytest.raises(json.JSONDecodeError, match=words):
        parse_json(text)


def test_annotations_may_be_large_but_not_deep() -> None:
    assert len(parse_large_json("[" + "1," * MAX_NODES + "1]")) == MAX_NODES + 1
    with pytest.raises(json.JSONDecodeError, match="nested too deep"):
        parse_large_json("[" * 1_000_000)


def test_literals_are_texts_numbers_and_their_collections() -> None:
    for value in ({0: "it's", 1: 'a "b"\\'}, ["x", ("y", 2.5)], {"a": None, "b": True}, {}):
        assert parse_literal(repr(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "[" * 40 + "]" * 40,
        "-" * 100_000 + "1",
        "1-1" * 100_000,
        "[" + "1," * MAX_NODES + "1]",
        "'" + "x" * MAX_BYTES + "'",
        "9" * 5000,
        "f'{1}'",
        "__import__('os')",
        "{0: 'a'",
    ],
)
def test_literals_beyond_a_limit_are_refused(text: str) -> None:
    with pytest.raises((ValueError, SyntaxError)):
        parse_literal(text)


def test_a_value_in_a_message_is_short_however_large_it_is() -> None:
    shared: list[object] = ["lol"] * 10
    for _ in range(30):  # 10^31 texts, were it written out
        shared = [shared] * 10
    assert len(show(shared)) == 60
    assert len(show({"a": shared, "b": "x" * 10**6})) <= 60
    assert show((640, 480)) == "[640, 480]"
    assert show("\x1b[31m") == "'\\x1b[31m'"
    assert show(10**5000) == "a whole number of 16610 bits"  # 5000 * log2(10)
    assert show_key("k" * 1000) == "k" * 57 + "..."

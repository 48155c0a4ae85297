"""Parse the arguments after the mode: `key=value`, `--key value`, bare `key`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rtdetr_cli.config.fields import field_types
from rtdetr_cli.config.from_pairs import is_switch, require_key
from rtdetr_cli.config.model_path import is_exported
from rtdetr_cli.config.settings.shared import Settings
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.files import is_there

_PAIR = re.compile(r"(?:--)?([A-Za-z][\w-]*)=(.*)", re.DOTALL)
_KEY = re.compile(r"(--)?([A-Za-z][\w-]*)")


def parse_arguments(cls: type[Settings], arguments: Sequence[str]) -> dict[str, str]:
    """Split arguments into keys and unparsed values.

    Raises:
        UsageError: an unknown key, a key without a value, or a duplicate key.
    """
    pairs: dict[str, str] = {}
    waiting = list(reversed(arguments))
    while waiting:
        argument = waiting.pop()
        if pair := _PAIR.fullmatch(argument):
            key, value = pair.groups()
        elif (place := _place_of(cls, argument, pairs)) is not None:
            key, value = place, argument
        elif (bare := _KEY.fullmatch(argument)) and not _is_stray(cls, argument):
            key = bare[2]
            value = _value_of(cls, _plain(key), waiting, dashed=bool(bare[1]))
        else:
            raise UsageError(f"{argument} is not key=value of {cls.mode}{_as_value(cls, argument)}")
        key = _plain(key)
        if key in pairs:
            raise UsageError(f"{cls.mode}: {key} is given twice")
        require_key(cls, key)
        pairs[key] = value
    return pairs


def _place_of(cls: type[Settings], word: str, pairs: dict[str, str]) -> str | None:
    """The key that a bare word is the value of, as `rtdetr compare a.pt b.pt`; None if it is none.

    Only a file name is taken for a value, so that a misspelled key is still reported as one.
    """
    if word.startswith("-") or not (Path(word).suffix or is_there(word)):
        return None
    return next((key for key in cls.positional if key not in pairs), None)


def _is_stray(cls: type[Settings], word: str) -> bool:
    """Whether a bare word is no key of the mode: `detect`, or a file on this machine."""
    if word != "detect" and not is_there(word):
        return False
    try:
        require_key(cls, _plain(word))
    except UsageError:
        return True
    return False


def _as_value(cls: type[Settings], word: str) -> str:
    """The hint `; write source=bus.jpg` for a bare word; empty if it is no name of a file."""
    if word == "detect":
        return f"; write `rtdetr {cls.mode}` or `rtdetr detect {cls.mode}`"
    if word.startswith("-"):
        return ""
    if not (Path(word).suffix or is_there(word)):
        return "; there is no such file or folder" if "/" in word else ""
    suffix, keys = Path(word).suffix.lower(), field_types(cls)
    is_weights = suffix in {".pt", ".pth"} or is_exported(word) or word.startswith("rtdetr")
    likely = "model" if is_weights else "data" if suffix in {".yaml", ".yml"} else "source"
    key = next((key for key in (likely, "source", "data", "model") if key in keys), None)
    return f"; write {key}={word}" if key else ""


def _plain(key: str) -> str:
    return key.replace("-", "_")


def _value_of(cls: type[Settings], key: str, waiting: list[str], dashed: bool) -> str:
    """Value of a key without `=`: true, or the next argument after a dashed key."""
    require_key(cls, key)
    may_be_bare = is_switch(cls, key)
    following = waiting[-1] if dashed and waiting else None
    if following is not None and _belongs(following, may_be_bare):
        return waiting.pop()
    if may_be_bare:
        return "true"
    raise UsageError(f"{cls.mode}: {key} needs a value, {key}=...")


def _belongs(word: str, is_switch: bool) -> bool:
    """Whether an argument is the value of the dashed key before it."""
    if word.lower() in {"true", "false"}:
        return True
    return not is_switch and not word.startswith("--")

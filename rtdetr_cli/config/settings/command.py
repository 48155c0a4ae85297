"""The command that a run can be repeated with, for its report."""

from __future__ import annotations

import shlex
from dataclasses import MISSING, fields

from rtdetr_cli.config.settings.shared import Settings

_FIRST = {"model", "other", "data"}


def as_command(settings: Settings) -> str:
    """`rtdetr MODE key=value ...` with the keys that are not at their defaults, for a shell."""
    words = ["rtdetr", settings.mode]
    for one in sorted(fields(settings), key=lambda one: one.name not in _FIRST):
        value = getattr(settings, one.name)
        is_key = one.metadata.get("is_key", True)
        if is_key and (one.default is MISSING or value != one.default):
            words.append(shlex.quote(f"{one.name}={_text(value)}"))
    return " ".join(words)


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool | None) else str(value)

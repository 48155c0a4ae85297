"""The texts that a progress bar shows beside its position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Status(NamedTuple):
    """What is shown with a position, the most important first."""

    above: Sequence[str] = ()
    """In a line of its own above the bar."""
    beside: Sequence[str] = ()
    """After the count, at the right of the bar; none: elapsed and remaining time."""


def count(done: float, total: float | None) -> str:
    """`40/120`."""
    return f"{done:.0f}/{'?' if total is None else f'{total:.0f}'}"


def duration(seconds: float) -> str:
    """`0:07`, `12:34`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

"""Texts of numbers: those that a progress bar shows beside its position, and counts of things."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Status(NamedTuple):
    """What is shown with a position, the most important first."""

    above: Sequence[str] = ()
    """In a line of its own above the bar."""
    beside: Sequence[str] = ()
    """After the count, at the right of the bar."""
    seconds_left: float | None = None
    """To the end of the command; None: estimated from the items so far."""

    def with_eta(self, estimate: float | None) -> list[str]:
        """The texts beside the bar, then the remaining time if it is known."""
        seconds = estimate if self.seconds_left is None else self.seconds_left
        return [*self.beside, *([] if seconds is None else [f"eta {duration(seconds)}"])]


def count(done: float, total: float | None) -> str:
    """`40/120`."""
    return f"{done:.0f}/{'?' if total is None else f'{total:.0f}'}"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 image`, `4 images`; other plurals are given: `counted(2, "box", "boxes")`."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def duration(seconds: float) -> str:
    """`0:07`, `12:34`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

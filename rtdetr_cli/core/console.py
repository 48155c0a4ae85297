"""All that the toolkit says: results to stdout, talk and the progress bar to stderr.

Only the main process speaks. Not a terminal: plain lines, no control codes. rich is imported when a
bar or a table is drawn, torch never.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

T = TypeVar("T")
_bars: list[Progress] = []  # bars on screen; lines must be printed above them


def say(text: str) -> None:
    """One line of talk on stderr."""
    _write(sys.stderr, text)


def warn(text: str) -> None:
    """One line on stderr that begins with `Warning:`."""
    _write(sys.stderr, f"Warning: {text}")


def result(text: str) -> None:
    """Lines of results on stdout, as they are: never wrapped, never coloured."""
    _write(sys.stdout, text)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout: the first column to the left, the others to the right."""
    if not _speaks():
        return
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        drawn.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*(Text(str(cell)) for cell in row))
    console = _console(sys.stdout)
    if not console.is_terminal:
        console.width = 10_000  # a file has no edge; the table takes what it needs
    console.print(drawn)


def progress(
    items: Iterable[T], total: int | None = None, label: str | Callable[[], str] = ""
) -> Iterator[T]:
    """Pass items on and show a bar on a terminal; elsewhere show nothing.

    Args:
        items: what to go through.
        total: how many there are, if known.
        label: text before the bar; a function is asked anew for each item.
    """
    if not (_speaks() and sys.stderr.isatty()):
        yield from items
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    text = label if callable(label) else lambda: label
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, *times, console=_console(sys.stderr), transient=True) as bar:
        _bars.append(bar)
        try:
            task = bar.add_task(text(), total=total)
            for item in items:
                yield item
                bar.update(task, advance=1, description=text())
        finally:
            _bars.remove(bar)


def _speaks() -> bool:
    """Whether this is the main process; the launcher tells each its number."""
    return os.environ.get("RANK", "0") == "0"


def _write(stream: TextIO, text: str) -> None:
    if not _speaks():
        return
    if _bars and stream.isatty():
        _bars[-1].console.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        stream.write(f"{text}\n")
        stream.flush()


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(file=stream, highlight=False)

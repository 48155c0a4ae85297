r"""Console output: results go to stdout, log output and the progress bar to stderr.

Only the main process prints. Text from outside is escaped: control characters appear as `\x1b`, and
rich markup is not interpreted. Without a terminal there are plain lines without control codes. rich
is imported when a bar or a table is drawn, torch never.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, cast

from rtdetr_cli.core.errors import StorageError, printable
from rtdetr_cli.core.files import reason_of
from rtdetr_cli.core.status import Status, count

if TYPE_CHECKING:
    from rtdetr_cli.core.live_bar import LiveBar

T = TypeVar("T")
_LONGEST = 10_000
"""Maximum characters per line; names from outside may have any length."""
REFRESH_S, LINE_S = 0.5, 10.0
"""Seconds between two updates of the texts beside a bar, and between two plain lines."""
clock = time.perf_counter
_bars: list[LiveBar] = []  # bars on screen; lines must be printed above them


class ReaderGone(Exception):  # noqa: N818  (not an error: nothing is reported)
    """The program that reads stdout has exited, as `head` does."""


class _Lossy:
    """A stream that ignores write errors: closed, full, or a terminal that has hung up."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  (whatever the stream has)
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write and ignore errors: a run continues when nobody reads its log output."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As `write`."""
        with suppress(OSError):
            self._stream.flush()


def open_streams() -> None:
    """Prepare stdout and stderr for a command.

    Descriptors 0 to 2 are opened on the null device if closed; otherwise the next opened file would
    get such a number and receive what libraries print.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that a terminal cannot show
    sys.stderr = cast("TextIO", _Lossy(sys.stderr or os.fdopen(2, "w", closefd=False)))
    warnings.showwarning = lambda message, *_, **__: warn(str(message))


def close_streams() -> None:
    """Discard what stdout did not accept; Python would retry and exit with its own code."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(*lines: str) -> None:
    """Print lines of log output to stderr."""
    _write(sys.stderr, "\n".join(map(_line, lines)))


def say_text(*lines: str) -> None:
    """Print long lines to stderr, wrapped between words on a terminal; not for commands to copy."""
    if not sys.stderr.isatty():
        say(*lines)
        return
    width = shutil.get_terminal_size().columns
    say(*(part for line in lines for part in textwrap.wrap(line, width, subsequent_indent="  ")))


def warn(text: str) -> None:
    """Print a line to stderr that starts with `Warning:`."""
    _write(sys.stderr, f"Warning: {_line(text)}")


def error(text: str) -> None:
    """Print a line to stderr that starts with `Error:`, from any process."""
    sys.stderr.write(f"Error: {_line(text)}\n")


def result(*lines: str) -> None:
    """Print lines of results to stdout, without wrapping or color.

    Raises:
        ReaderGone: the program that reads stdout has exited.
        StorageError: stdout is closed or full.
    """
    _write(sys.stdout, "\n".join(map(_line, lines)))


def result_json(text: str) -> None:
    """Print JSON to stdout; raises like `result`.

    Characters that JSON leaves unescaped (DEL, C1, bidi overrides) are escaped as well; a parser
    reads the same values.
    """
    _write(sys.stdout, "\n".join(map(_json_line, text.split("\n"))))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to stdout, the first column left-aligned, the others right-aligned."""
    if not _is_main_process():
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    heading = Text(title, "table.title") if title else None
    drawn = Table(title=heading, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        drawn.add_column(Text(column), justify="right" if number else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*(Text(_line(str(cell))) for cell in row))
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    text = io.StringIO()
    console = Console(file=text, highlight=False, force_terminal=is_terminal)
    if not is_terminal:
        console.width = 10_000  # no wrapping in a file
    console.print(drawn)
    _write(sys.stdout, text.getvalue().removesuffix("\n"))


def progress(
    items: Iterable[T],
    total: int | None = None,
    label: str | Callable[[], str] = "",
    status: Callable[[], Status] | None = None,
    done: int = 0,
    unit: str = "step",
) -> Iterator[T]:
    """Yield the items and show the position: a bar on a terminal, elsewhere plain lines.

    Args:
        items: any iterable.
        total: number of items, with those done before, if known.
        label: text before the bar; a function is called for each item.
        status: texts with the position, asked for at most every half a second on a terminal, and
            every ten seconds elsewhere, where there are no lines without it.
        done: number of items done before.
        unit: what an item is called in plain lines.
    """
    is_terminal = _is_main_process() and sys.stderr.isatty()

    def text() -> str:
        return _line(label() if callable(label) else label)

    if is_terminal:
        yield from _with_bar(items, total, text, status, done)
    elif status is not None and _is_main_process():
        yield from _with_lines(items, total, lambda: f"{text()}, {unit}", status, done)
    else:
        yield from items


def _with_bar(
    items: Iterable[T],
    total: int | None,
    label: Callable[[], str],
    status: Callable[[], Status] | None,
    done: int,
) -> Iterator[T]:
    from rich.console import Console

    from rtdetr_cli.core.live_bar import LiveBar

    console = Console(file=cast("TextIO", _Lossy(sys.stderr)), highlight=False)
    is_due = _every(REFRESH_S)
    with LiveBar(console, label(), total, done) as bar:
        _bars.append(bar)
        try:
            for position, item in enumerate(items, start=done + 1):
                yield item
                bar.show(position, label(), status() if status is not None and is_due() else None)
        finally:
            _bars.remove(bar)


def _with_lines(
    items: Iterable[T],
    total: int | None,
    label: Callable[[], str],
    status: Callable[[], Status],
    done: int,
) -> Iterator[T]:
    is_due, start = _every(LINE_S), clock()
    is_due()  # the first line comes after ten seconds
    for position, item in enumerate(items, start=done + 1):
        yield item
        if is_due():
            shown, pace = status(), (clock() - start) / (position - done)
            texts = (*shown.above, *shown.with_eta((total - position) * pace if total else None))
            say(f"{label()} {count(position, total)}: {', '.join(texts)}")


def _every(seconds: float) -> Callable[[], bool]:
    """A function that returns true at most once in so many seconds."""
    last = float("-inf")

    def is_due() -> bool:
        nonlocal last
        if clock() - last < seconds:
            return False
        last = clock()
        return True

    return is_due


def _is_main_process() -> bool:
    """Whether this is the main process; the launcher sets RANK."""
    return os.environ.get("RANK", "0") == "0"


def _line(text: str) -> str:
    return printable(text, _LONGEST)


def _json_line(text: str) -> str:
    if text.isprintable():
        return text
    letters = zip(text, map(_line, text), strict=True)
    return "".join(old if old == new else _json_escape(old) for old, new in letters)


def _json_escape(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _write(stream: TextIO | None, text: str) -> None:
    if not _is_main_process():
        return
    try:
        _print(stream, text)
    except OSError as problem:
        if stream is sys.stderr:
            return  # a run continues when nobody reads its log output
        if problem.errno == errno.EPIPE:
            raise ReaderGone("nobody reads stdout") from None
        raise StorageError(f"cannot write to stdout: {reason_of(problem)}") from problem


def _print(stream: TextIO | None, text: str) -> None:
    if stream is None:
        raise OSError(errno.EBADF, "closed")
    if _bars and stream.isatty():
        _bars[-1].console.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        stream.write(f"{text}\n")
        stream.flush()

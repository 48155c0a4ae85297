"""The bar that `console.progress` draws on a terminal, with the texts of a `Status`.

A narrow terminal drops texts from the right; no line wraps. console.py imports this file when a bar
is drawn, as rich is slow to import.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import Progress, ProgressColumn, Task
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rtdetr_cli.core.status import Status, count, duration

GAP = "  "
SHORTEST, LONGEST = 8, 40
"""Characters of the bar; it is left out where there is less room."""


class LiveBar(Progress):
    """A bar with a label, a count and the texts of a `Status`; gone when it ends."""

    def __init__(self, console: Console, label: str, total: int | None, done: int = 0) -> None:
        super().__init__(_Column(), console=console, transient=True)
        self._status = Status()
        self._task = self.add_task(label, total=total, completed=done, status=self._status)

    def show(self, done: float, label: str, status: Status | None = None) -> None:
        """Set the position; None keeps the texts."""
        self._status = self._status if status is None else status
        self.update(self._task, completed=done, description=label, status=self._status)


class _Column(ProgressColumn):
    """The only column, so that all texts share the width."""

    def render(self, task: Task) -> _Lines:
        return _Lines(task)


class _Lines:
    def __init__(self, task: Task) -> None:
        self._task = task

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        task, width = self._task, options.max_width
        status: Status = task.fields["status"]
        if status.above:
            yield _text(fit(status.above, width))
        if not status.beside:
            status = Status(beside=[duration(task.elapsed or 0)])
        texts = (count(task.completed, task.total), *status.with_eta(task.time_remaining))
        label = fit((task.description,), width)
        right = fit(texts, max(0, width - cell_len(label) - len(GAP)))
        room = width - cell_len(label) - cell_len(right) - 2 * len(GAP)
        if room < SHORTEST:
            yield _text(fit((label, *texts), width))
            return
        bar = ProgressBar(
            task.total, task.completed, width=min(room, LONGEST), pulse=not task.total
        )
        row = Table.grid(padding=(0, len(GAP)))
        row.add_row(_text(label), bar, _text(right))
        yield row


def fit(texts: Sequence[str], width: int) -> str:
    """As many texts in a line as the width holds; the first one is cut if it is too long."""
    line = texts[0]
    for text in texts[1:]:
        if cell_len(line) + len(GAP) + cell_len(text) > width:
            break
        line += GAP + text
    return line if cell_len(line) <= width else set_cell_size(line, width)


def _text(line: str) -> Text:
    return Text(line, no_wrap=True, overflow="crop")

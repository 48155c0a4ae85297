"""The table that a run prints, a line per epoch, at most 80 columns wide."""

from __future__ import annotations

from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.console import say
from rtdetr_cli.core.status import duration
from rtdetr_cli.engine.training.run_log import Row

LOSSES = {
    "giou": "train/loss_giou",
    "vfl": "train/loss_vfl",
    "mal": "train/loss_mal",
    "l1": "train/loss_bbox",
}
REFINEMENT = {"fgl": "train/loss_fgl", "ddf": "train/loss_ddf"}
"""Losses of distributions; the table has no room for them."""
SCORES = {"P": "metrics/precision", "R": "metrics/recall", "AP50": "metrics/AP50"}
HEADER_EVERY = 20
"""Epochs between two headers."""


class EpochTable:
    """Prints each epoch, and the header before the first one and every twenty."""

    def __init__(self) -> None:
        self._num_shown = 0

    def show(self, row: Row, settings: TrainSettings) -> None:
        """Print the row of an epoch."""
        say(*epoch_lines(row, settings, with_header=self._num_shown % HEADER_EVERY == 0))
        self._num_shown += 1


def epoch_lines(row: Row, settings: TrainSettings, with_header: bool) -> list[str]:
    """The line of an epoch, with the header before and skipped steps after it."""
    epochs = f"{settings.epochs}/{settings.epochs}"
    cells = [("epoch", f"{row['epoch']:.0f}/{settings.epochs}", max(7, len(epochs)))]
    cells += [(name, _number(value), 5) for name, value in shown_losses(row, LOSSES).items()]
    if settings.val:
        cells += [(name, _score(row, column), 5) for name, column in SCORES.items()]
        cells += [("AP", _score(row, "metrics/AP", 4), 6)]
    cells += [("lr", f"{row['lr']:.1e}", 7), ("time", duration(row["time"]), 5)]
    cells += [("wait", f"{100 * row['data_wait']:.0f} %", 4)]
    lines = ["  ".join(f"{text:>{width}}" for _, text, width in cells)]
    if with_header:
        lines.insert(0, "  ".join(f"{name:>{width}}" for name, _, width in cells))
    if "train/skipped" in row:
        lines.append(f"steps not finite and skipped: {row['train/skipped']:.0f}")
    return lines


def shown_losses(row: Row, columns: dict[str, str]) -> Row:
    """The losses that a row has under short names."""
    return {name: row[column] for name, column in columns.items() if column in row}


def _number(value: float) -> str:
    """Five characters up to 9999."""
    digits = next((digits for limit, digits in ((10, 3), (100, 2), (1000, 1)) if value < limit), 0)
    return f"{value:.{digits}f}"


def _score(row: Row, column: str, digits: int = 3) -> str:
    """A score; a dash in epochs without validation and where COCO defines none (-1)."""
    value = row.get(column, -1.0)
    return f"{value:.{digits}f}" if value >= 0 else "-"

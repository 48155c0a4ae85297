"""The log of a training run: results.csv, args.yaml and the table of epochs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import yaml

from rtdetr_cli.config.fields import field_types
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.console import say
from rtdetr_cli.core.distributed import main_process_only
from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.core.status import duration
from rtdetr_cli.evaluation.metrics import Metrics

Row = dict[str, float]

LOSSES = {
    "giou": "train/loss_giou",
    "vfl": "train/loss_vfl",
    "mal": "train/loss_mal",
    "l1": "train/loss_bbox",
}
SCORES = {"P": "metrics/precision", "R": "metrics/recall", "AP50": "metrics/AP50"}
HEADER_EVERY = 20
"""Epochs between two headers of the printed table."""


class RunLog:
    """results.csv, rewritten after each epoch so that a killed run leaves a complete file.

    Attributes:
        rows: one row per epoch, shared with the run's progress.
    """

    def __init__(
        self,
        run_dir: Path,
        rows: list[Row],
        as_written: Callable[[list[Row]], list[Row]] | None = None,
    ) -> None:
        self.rows = rows
        self._as_written = as_written
        self._path = run_dir / "results.csv"
        self._num_shown = 0

    @main_process_only
    def append(self, row: Row) -> None:
        """Add an epoch and write results.csv."""
        self.rows.append(row)
        rows = self._as_written(self.rows) if self._as_written else self.rows
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in rows)
        with atomic_write(self._path) as path:
            path.write_text(text.getvalue())

    def show(self, row: Row, settings: TrainSettings) -> None:
        """Print an epoch."""
        say(*epoch_lines(row, settings, self._num_shown % HEADER_EVERY == 0))
        self._num_shown += 1


def validation_columns(metrics: Metrics) -> Row:
    """COCO's twelve numbers, and precision and recall at the confidence with the best mean F1."""
    numbers = {**metrics.stats, "precision": metrics.box.mp, "recall": metrics.box.mr}
    return {f"metrics/{name}": value for name, value in numbers.items()}


def shown_losses(row: Row) -> Row:
    """The terms of the last decoder layer under short names."""
    return {name: row[column] for name, column in LOSSES.items() if column in row}


def epoch_lines(row: Row, settings: TrainSettings, with_header: bool) -> list[str]:
    """The line printed after an epoch, one of a table at most 80 columns wide."""
    epochs = f"{settings.epochs}/{settings.epochs}"
    cells = [("epoch", f"{row['epoch']:.0f}/{settings.epochs}", max(7, len(epochs)))]
    cells += [(name, _number(value), 5) for name, value in shown_losses(row).items()]
    if settings.val:
        cells += [(name, _score(row, column), 5) for name, column in SCORES.items()]
        cells += [("AP", _score(row, "metrics/AP", 4), 6)]
    cells += [("lr", f"{row['lr']:.1e}", 7), ("time", duration(row["time"]), 5)]
    cells += [("wait", f"{100 * row['data_wait']:.0f} %", 4)]
    lines = ["  ".join(f"{text:>{width}}" for _, text, width in cells)]
    if with_header:
        lines.insert(0, "  ".join(f"{name:>{width}}" for name, _, width in cells))
    if "train/skipped" in row:
        lines.append(f"{row['train/skipped']:.0f} steps of it were not finite and skipped")
    return lines


def _number(value: float) -> str:
    """Five characters up to 9999."""
    digits = next((digits for limit, digits in ((10, 3), (100, 2), (1000, 1)) if value < limit), 0)
    return f"{value:.{digits}f}"


def _score(row: Row, column: str, digits: int = 3) -> str:
    """A score; a dash in epochs without validation and where COCO defines none (-1)."""
    value = row.get(column, -1.0)
    return f"{value:.{digits}f}" if value >= 0 else "-"


def write_args(run_dir: Path, settings: TrainSettings) -> None:
    """Write the settings of a run as args.yaml, which `cfg=` reads."""
    with atomic_write(run_dir / "args.yaml") as path:
        path.write_text(yaml.safe_dump(primitives(settings), sort_keys=False))


def primitives(settings: TrainSettings) -> dict[str, object]:
    """Settings as YAML and checkpoints store them: tuples become lists."""
    return {
        key: list(value) if isinstance(value := getattr(settings, key), tuple) else value
        for key in field_types(TrainSettings)
    }

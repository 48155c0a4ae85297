"""The log of a training run: results.csv and args.yaml."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import yaml

from rtdetr_cli.config.fields import field_types
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.distributed import main_process_only
from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.evaluation.metrics import Metrics

Row = dict[str, float]


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


def validation_columns(metrics: Metrics) -> Row:
    """COCO's twelve numbers, and precision and recall at the confidence with the best mean F1."""
    numbers = {**metrics.stats, "precision": metrics.box.mp, "recall": metrics.box.mr}
    return {f"metrics/{name}": value for name, value in numbers.items()}


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

"""What a training run leaves to read: results.csv, results.png, args.yaml."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, fields
from pathlib import Path

import yaml

from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.files import atomic_write

Row = dict[str, float]


class RunLog:
    """One row per epoch, rewritten as a whole so that a killed run leaves a whole file.

    Attributes:
        rows: what has been logged so far.
    """

    def __init__(self, run_dir: Path, rows: list[Row] | None = None) -> None:
        self.rows: list[Row] = list(rows or [])
        self._path = run_dir / "results.csv"

    def append(self, row: Row) -> None:
        """Add an epoch and write results.csv."""
        self.rows.append(row)
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in self.rows)
        with atomic_write(self._path) as path:
            path.write_text(text.getvalue())

    def plot(self) -> None:
        """Draw every column over the epochs into results.png."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        columns = [key for key in self.rows[-1] if key not in {"epoch", "time"}]
        width = 5
        height = -(-len(columns) // width)
        figure = Figure(figsize=(3.2 * width, 2.6 * height), layout="constrained")
        FigureCanvasAgg(figure)
        for place, column in enumerate(columns, start=1):
            axes = figure.add_subplot(height, width, place)
            known = [row for row in self.rows if column in row]
            axes.plot(
                [row["epoch"] for row in known], [row[column] for row in known], marker=".", ms=4
            )
            axes.set_title(column, fontsize=9)
            axes.tick_params(labelsize=7)
            axes.grid(alpha=0.3)
        with atomic_write(self._path.with_name("results.png")) as path:
            figure.savefig(path, dpi=120)


def write_args(run_dir: Path, settings: TrainSettings) -> None:
    """Write the settings of a run as args.yaml, which `cfg=` takes back."""
    with atomic_write(run_dir / "args.yaml") as path:
        path.write_text(yaml.safe_dump(primitives(settings), sort_keys=False))


def primitives(settings: TrainSettings) -> dict[str, object]:
    """Settings as YAML and checkpoints store them: tuples become lists."""
    values = asdict(settings)
    return {
        field.name: list(value) if isinstance(value := values[field.name], tuple) else value
        for field in fields(settings)
    }

"""Benchmark: all formats of a model against PyTorch on this machine, in one table.

Measures accuracy and drift; benchmarking/rows.py writes the files, timing.py times them.
"""

from __future__ import annotations

import csv
import json
import platform
from dataclasses import asdict, fields, replace
from pathlib import Path

import torch

from rtdetr_cli.backends.load import load_detector, preprocessing_for
from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.model_path import is_architecture
from rtdetr_cli.config.settings.benchmark import BenchmarkSettings
from rtdetr_cli.core.console import result_json, say, table, warn
from rtdetr_cli.core.cpu import cpu_features, cpu_name
from rtdetr_cli.core.errors import RTDETRError, UsageError
from rtdetr_cli.core.files import atomic_write, new_run_dir
from rtdetr_cli.engine.benchmarking.rows import Row, chosen_formats, written
from rtdetr_cli.engine.benchmarking.timing import time_rows
from rtdetr_cli.engine.env import torch_advisory
from rtdetr_cli.engine.exporting.images import Images, find_images
from rtdetr_cli.engine.exporting.verdict import LIMITS, Predictions, judge, run_detector
from rtdetr_cli.evaluation.report import save_tradeoff
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint
from rtdetr_cli.weights.store import resolve_weights

EVERY_IMAGE = 1 << 30
COLUMNS = (
    "format", "precision", "MB", "AP", "matched", "box drift px (p99)", "score drift (p99)",
    "p50 ms", "p90 ms", "p99 ms", "images/s", "memory MB",
)  # fmt: skip


def benchmark(settings: BenchmarkSettings) -> list[Row]:
    """Export the model to every format, measure each and print one table.

    Args:
        settings: every key of `rtdetr benchmark`.

    Raises:
        UsageError: a format is unknown, or the model is an exported file.
        BackendError: PyTorch itself cannot run it.
    """
    formats = chosen_formats(settings.formats)
    images = (
        find_images(settings.data, settings.images or EVERY_IMAGE, settings.download)
        if settings.data
        else None
    )
    run_dir = new_run_dir(settings.project, settings.name, settings.exist_ok)
    model, reference = _open(settings, run_dir)
    preprocessing = preprocessing_for(reference, settings.imgsz)
    say(f"{reference.description}; {machine()}")
    rows = [written(name, model, settings, run_dir, reference.device) for name in formats]
    images = images or find_images(None)
    ours = run_detector(reference, images, preprocessing)
    rows = [_accuracy(row, ours, images, preprocessing, settings) for row in rows]
    rows = time_rows(rows, settings, preprocessing.size_hw)
    _report(settings, rows, run_dir, images)
    return rows


def machine() -> str:
    """Hardware and software of the measurement, human-readable."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA"
    return (
        f"{platform.system()} {platform.machine()}, {cpu_name()} ({cpu_features().describe()}), "
        f"{torch.get_num_threads()} threads, {cuda}, PyTorch {torch.__version__}"
        f"{torch_advisory(torch.__version__)}"
    )


def _open(settings: BenchmarkSettings, run_dir: Path) -> tuple[str, TorchDetector]:
    """The weights that all formats share, in a file that says all of them."""
    detector = load_detector(settings.model, settings.device, family=settings.family)
    if not isinstance(detector, TorchDetector):
        raise UsageError(f"model={settings.model} is an exported file; give the weights (.pt)")
    if not is_architecture(settings.model) and not settings.family:
        return str(resolve_weights(settings.model)), detector
    network, path = detector.network, run_dir / f"{Path(settings.model).stem}.pt"
    weights = network.state_dict()
    checkpoint = Checkpoint(network.config, detector.names, weights, detector.preprocessing)
    save_checkpoint(path, checkpoint)
    return str(path), detector


def _accuracy(
    row: Row,
    ours: Predictions,
    images: Images,
    preprocessing: Preprocessing,
    settings: BenchmarkSettings,
) -> Row:
    """Add AP and the drift from PyTorch, or the reason why it does not run."""
    if row.reason:
        return row
    if row.format == "torch":
        return replace(row, ap=ours.ap)
    try:
        half, timeout = row.format == "torch-half", settings.timeout
        detector = load_detector(str(row.path), settings.device, half=half, timeout=timeout)
        theirs = run_detector(detector, images, preprocessing)
    except RTDETRError as error:
        return replace(row, reason=str(error))
    found = judge(ours, theirs, LIMITS[row.precision])
    box, score = found.box_drift_px, found.score_drift
    return replace(
        row,
        ap=theirs.ap,
        matched=found.matched,
        box_drift_px=box.p99 if box else None,
        score_drift=score.p99 if score else None,
        lost=found.lost,
        new=found.new,
    )


def _report(settings: BenchmarkSettings, rows: list[Row], run_dir: Path, images: Images) -> None:
    """Print the table on stdout; write CSV, JSON and a plot to the run folder."""
    names = [field.name for field in fields(Row)]
    with atomic_write(run_dir / "benchmark.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    head = {"machine": machine(), "images": images.origin, "batch": settings.batch}
    values = {**head, "count": len(images.sources), "rows": [asdict(row) for row in rows]}
    with atomic_write(run_dir / "benchmark.json") as path:
        path.write_text(json.dumps(values, indent=2) + "\n")
    save_tradeoff(run_dir / "benchmark.png", *_points(rows))
    if settings.json:
        result_json(json.dumps(values))
    else:
        table("", COLUMNS, [_cells(row) for row in rows if not row.reason])
        for row in rows:
            if row.reason:
                warn(f"{row.format} did not run: {row.reason}")
    say(f"saved to {run_dir}")


def _points(rows: list[Row]) -> tuple[list[tuple[str, float, float]], str]:
    """Name, latency and AP (drift, without labels) of each row, and the label of the last value."""
    timed = [row for row in rows if row.p50_ms is not None]
    has_ap = any(row.ap is not None for row in timed)
    values = [row.ap if has_ap else row.box_drift_px for row in timed]
    points = [
        (row.format, row.p50_ms or 0.0, value or 0.0)
        for row, value in zip(timed, values, strict=True)
    ]
    return points, "AP" if has_ap else "box drift from PyTorch, px (p99)"


def _cells(row: Row) -> list[str]:
    forms = (
        (row.megabytes, ".1f"), (row.ap, ".4f"), (row.matched, ".2%"), (row.box_drift_px, ".3g"),
        (row.score_drift, ".2g"), (row.p50_ms, ".1f"), (row.p90_ms, ".1f"), (row.p99_ms, ".1f"),
        (row.per_second, ".1f"), (row.memory_mb, ".0f"),
    )  # fmt: skip
    shown = ["-" if value is None else format(value, form) for value, form in forms]
    return [row.format, row.precision, *shown]

"""Benchmark: every format of one model beside PyTorch on this machine, in one table.

Accuracy and drift are measured here, speed and memory by a process of its own for each format
(contestant.py), in turns, because the speed of a machine drifts by more than formats differ.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from rtdetr_cli.backends.load import load_detector, preprocessing_for
from rtdetr_cli.backends.openvino import FOLDER
from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.config.deployment import BenchmarkSettings
from rtdetr_cli.config.export_settings import ExportSettings
from rtdetr_cli.config.fields import YAML_SUFFIXES, allowed_texts, field_types
from rtdetr_cli.core.console import progress, result, say, table, warn
from rtdetr_cli.core.errors import BackendError, UsageError, nearest
from rtdetr_cli.core.files import atomic_write, new_run_dir
from rtdetr_cli.engine.export import PRECISION, export, report_file
from rtdetr_cli.engine.verdict import LIMITS, Answers, Pictures, ask, find_pictures, judge
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint
from rtdetr_cli.weights.store import resolve_weights

CALLS_IN_TURN = 5
"""Calls of one format before the next one has its turn."""
WARM_UP = 3
BATCH_TURNS = 3
EVERY_PICTURE = 1 << 30
COLUMNS = (
    "format", "precision", "MB", "AP", "matched", "box drift px (p99)", "score drift (p99)",
    "p50 ms", "p90 ms", "p99 ms", "pictures/s", "memory MB",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One format. What could not be measured is None; `reason` says why it did not run at all.

    Attributes:
        format: torch, or what `rtdetr export` writes.
        precision: of the weights in the file.
        path: the file.
        megabytes: its size.
        ap: of 1, where the pictures have labels.
        matched: share of the answers that match PyTorch's, weighted by score.
        box_drift_px: 99th percentile, pixels of the picture.
        score_drift: 99th percentile.
        lost: detections of PyTorch that it does not find.
        new: detections that PyTorch does not find.
        p50_ms: median time of one picture, post-processing included.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        per_second: pictures in a second in batches of `batch`.
        memory_mb: peak of a fresh process after the single pictures.
        reason: why it cannot run here.
    """

    format: str
    precision: str = PRECISION
    path: str | None = None
    megabytes: float | None = None
    ap: float | None = None
    matched: float | None = None
    box_drift_px: float | None = None
    score_drift: float | None = None
    lost: int | None = None
    new: int | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    per_second: float | None = None
    memory_mb: float | None = None
    reason: str | None = None


def benchmark(settings: BenchmarkSettings) -> list[Row]:
    """Write the model in every format, measure all of them and print one table.

    Args:
        settings: every key of `rtdetr benchmark`.

    Raises:
        UsageError: a format is unknown, or the model is an exported file.
        BackendError: PyTorch itself cannot run it.
    """
    formats = chosen_formats(settings.formats)
    pictures = (
        find_pictures(settings.data, settings.images or EVERY_PICTURE) if settings.data else None
    )
    run_dir = new_run_dir(settings.project, settings.name, settings.exist_ok)
    model, reference = _open(settings, run_dir)
    preprocessing = preprocessing_for(reference, settings.imgsz)
    say(f"{reference.description}; {machine()}")
    rows = [_written(name, model, settings, run_dir) for name in formats]
    pictures = pictures or find_pictures(None)
    answers = ask(reference, pictures, preprocessing)
    rows = [row if row.reason else _accuracy(row, answers, settings, pictures) for row in rows]
    rows = _speed(rows, settings, preprocessing.size_hw)
    _report(settings, rows, run_dir, pictures)
    return rows


def chosen_formats(formats: str | None) -> list[str]:
    """PyTorch first, then what was asked for, or all that `rtdetr export` knows.

    Raises:
        UsageError: there is no such format.
    """
    known = [*allowed_texts(field_types(ExportSettings)["format"])[0].values]
    asked = known if formats is None else [one.strip() for one in formats.split(",")]
    for name in asked:
        if name not in {"torch", *known}:
            raise UsageError(
                f"benchmark: formats={name} is none of torch, {', '.join(known)}"
                f"{nearest(name, ['torch', *known])}"
            )
    return list(dict.fromkeys(["torch", *asked]))


def machine() -> str:
    """What the numbers were measured on, for people."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA"
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, "
        f"{torch.get_num_threads()} threads, {cuda}, PyTorch {torch.__version__}"
    )


def _open(settings: BenchmarkSettings, run_dir: Path) -> tuple[str, TorchDetector]:
    """The weights that all formats share; an architecture gets random ones, kept in a file."""
    detector = load_detector(settings.model, settings.device)
    if not isinstance(detector, TorchDetector):
        raise UsageError(f"model={settings.model} is an exported file; give the weights (.pt)")
    if Path(settings.model).suffix not in YAML_SUFFIXES:
        return str(resolve_weights(settings.model)), detector
    network, path = detector.network, run_dir / f"{Path(settings.model).stem}.pt"
    weights = network.state_dict()
    checkpoint = Checkpoint(network.config, detector.names, weights, detector.preprocessing)
    save_checkpoint(path, checkpoint)
    return str(path), detector


def _written(name: str, model: str, settings: BenchmarkSettings, run_dir: Path) -> Row:
    """The file of a format, or the reason why there is none."""
    if name == "torch":
        return _with_file(Row(name), Path(model))
    ending = FOLDER if name == "openvino" else f".{name}"
    output = run_dir / f"{Path(model).stem}{ending}"
    traced, imgsz = run_dir / f"{Path(model).stem}.onnx", settings.imgsz
    if name == "engine" and traced.is_file():
        model, imgsz = str(traced), None
    wanted = ExportSettings(
        model=model, format=name, output=str(output), imgsz=imgsz, device=settings.device
    )
    try:
        with redirect_stdout(sys.stderr):  # its result is talk here
            path = export(wanted)
    except (BackendError, UsageError) as error:
        return Row(name, reason=str(error))
    report = json.loads(report_file(path).read_text())
    return _with_file(Row(name, report["precision"]), path)


def _with_file(row: Row, path: Path) -> Row:
    size = (
        path.stat().st_size
        if path.is_file()
        else sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    )
    return replace(row, path=str(path), megabytes=size / 1e6)


def _accuracy(row: Row, ours: Answers, settings: BenchmarkSettings, pictures: Pictures) -> Row:
    """AP, and how far the answers are from PyTorch's."""
    if row.format == "torch":
        return replace(row, ap=ours.ap)
    detector = load_detector(str(row.path), settings.device)
    theirs = ask(detector, pictures, detector.preprocessing)
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


class Contestant:
    """A process that runs one file when it is told to."""

    def __init__(self, row: Row, device: str | None, size_hw: tuple[int, int]) -> None:
        self.row = row
        self.times_ms: list[float] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rtdetr_cli.engine.contestant"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self._tell({"model": row.path, "device": device, "size_hw": size_hw})
        except BackendError:
            self.close()
            raise

    def run(self, calls: int, batch: int = 1) -> tuple[list[float], int | None]:
        """Times in milliseconds, and the peak of its memory in bytes so far."""
        answer = self._tell({"batch": batch, "calls": calls})
        return answer["times_ms"], answer["peak_bytes"]

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _tell(self, order: dict[str, Any]) -> dict[str, Any]:
        """Hand an order over and wait.

        Raises:
            BackendError: it failed or died.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin
        assert stdout
        with suppress(BrokenPipeError):  # then it answers nothing either
            stdin.write(json.dumps(order) + "\n")
            stdin.flush()
        line = stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "its process died"}
        if "error" in answer:
            raise BackendError(f"{self.row.format}: {answer['error']}")
        return answer


def _speed(rows: list[Row], settings: BenchmarkSettings, size_hw: tuple[int, int]) -> list[Row]:
    """Time all formats that run, in turns."""
    contestants: list[Contestant] = []
    done: dict[str, Row] = {}
    try:
        for row in rows:
            if not row.reason:
                started = _started(row, settings.device, size_hw)
                if isinstance(started, Row):
                    done[row.format] = started
                else:
                    contestants.append(started)
        peaks = _time_singles(contestants, settings.runs)
        speeds = _time_batches(contestants, settings.batch)
        for one in contestants:
            name = one.row.format
            done[name] = _timed(one, peaks[name], speeds[name])
    finally:
        for one in contestants:
            one.close()
    return [done.get(row.format, row) for row in rows]


def _started(row: Row, device: str | None, size_hw: tuple[int, int]) -> Contestant | Row:
    """A contestant that has warmed up, or the reason why there is none."""
    try:
        contestant = Contestant(row, device, size_hw)
    except BackendError as error:
        return replace(row, reason=str(error))
    contestant.run(WARM_UP)
    return contestant


def _time_singles(contestants: list[Contestant], runs: int) -> dict[str, int | None]:
    """Single pictures, in turns; the peak of each one's memory in bytes."""
    turns = -(-runs // CALLS_IN_TURN)
    peaks: dict[str, int | None] = {}
    for _ in progress(range(turns), turns, "benchmark"):
        for one in contestants:
            times_ms, peaks[one.row.format] = one.run(CALLS_IN_TURN)
            one.times_ms += times_ms
    return peaks


def _time_batches(contestants: Iterable[Contestant], batch: int) -> dict[str, float]:
    """Pictures in a second of each, the median of a few turns after one that warms up."""
    times_ms: dict[str, list[float]] = {}
    for turn in range(1 + BATCH_TURNS):
        for one in contestants:
            found = one.run(1, batch)[0]
            times_ms.setdefault(one.row.format, []).extend(found if turn else [])
    return {name: 1000 * batch / median(times) for name, times in times_ms.items()}


def _timed(contestant: Contestant, peak_bytes: int | None, per_second: float) -> Row:
    p50, p90, p99 = np.percentile(contestant.times_ms, [50, 90, 99]).tolist()
    return replace(
        contestant.row,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        per_second=per_second,
        memory_mb=None if peak_bytes is None else peak_bytes / 1e6,
    )


def _report(
    settings: BenchmarkSettings, rows: list[Row], run_dir: Path, pictures: Pictures
) -> None:
    """The table on stdout, the numbers as CSV and JSON in the run folder."""
    names = [field.name for field in fields(Row)]
    with atomic_write(run_dir / "benchmark.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    head = {"machine": machine(), "pictures": pictures.origin, "batch": settings.batch}
    values = {**head, "count": len(pictures.sources), "rows": [asdict(row) for row in rows]}
    with atomic_write(run_dir / "benchmark.json") as path:
        path.write_text(json.dumps(values, indent=2) + "\n")
    if settings.json:
        result(json.dumps(values))
    else:
        table("", COLUMNS, [_cells(row) for row in rows if not row.reason])
        for row in rows:
            if row.reason:
                warn(f"{row.format} did not run: {row.reason}")
    say(f"saved to {run_dir}")


def _cells(row: Row) -> list[str]:
    forms = (
        (row.megabytes, ".1f"), (row.ap, ".4f"), (row.matched, ".2%"), (row.box_drift_px, ".3g"),
        (row.score_drift, ".2g"), (row.p50_ms, ".1f"), (row.p90_ms, ".1f"), (row.p99_ms, ".1f"),
        (row.per_second, ".1f"), (row.memory_mb, ".0f"),
    )  # fmt: skip
    shown = ["-" if value is None else format(value, form) for value, form in forms]
    return [row.format, row.precision, *shown]

"""Tradeoff: what fewer decoder layers, fewer queries and other image sizes cost and save.

Measures AP (tradeoffs/accuracy.py) and latency (tradeoffs/latency.py) of every setting on this
machine, prints the Pareto front and chooses a setting.
"""

from __future__ import annotations

import csv
import json
import shlex
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rtdetr_cli.backends.autocast import half_dtype
from rtdetr_cli.backends.load import load_detector, preprocessing_for
from rtdetr_cli.backends.torch import TorchDetector, choose_device
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.config.settings.tradeoff import TradeoffSettings
from rtdetr_cli.core.console import result, result_json, say, table, warn
from rtdetr_cli.core.errors import BackendError, DataError, UsageError
from rtdetr_cli.core.files import atomic_write, new_run_dir, run_path
from rtdetr_cli.core.status import counted
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.problems import write_skipped
from rtdetr_cli.data.selection import select_classes
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.data.workers import leave_if_importing_main
from rtdetr_cli.engine.benchmark import machine
from rtdetr_cli.engine.export import export_file
from rtdetr_cli.engine.tradeoffs.accuracy import ap_of_file, ap_of_grid
from rtdetr_cli.engine.tradeoffs.latency import time_settings
from rtdetr_cli.engine.tradeoffs.rows import Grid, Row, Setting, front, make_grid, marked, refusal
from rtdetr_cli.engine.val import match_model
from rtdetr_cli.evaluation.comparison import FEW_IMAGES, estimate
from rtdetr_cli.evaluation.matching import Floats
from rtdetr_cli.evaluation.tradeoff_figure import TradeoffPoint, save_tradeoff_figure
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint
from rtdetr_cli.weights.store import resolve_weights

COLUMNS = ("imgsz", "layers", "queries", "runtime", "AP", "95 %", "change", "95 %", "ms", "")


@dataclass(frozen=True)
class Tradeoff:
    """Result of `rtdetr tradeoff`.

    Attributes:
        rows: all settings, fastest first.
        save_dir: the run folder, with tradeoff.csv and tradeoff.png.
        file: the exported file of the choice; None if it is not exported.
    """

    rows: list[Row]
    save_dir: Path
    file: Path | None = None

    @property
    def chosen(self) -> Row | None:
        """The choice; None if no setting is within the limits."""
        return next((row for row in self.rows if row.is_chosen), None)

    @property
    def best(self) -> list[Row]:
        """The Pareto front, fastest first."""
        return [row for row in self.rows if row.is_best]


@dataclass(frozen=True)
class _Measured:
    """AP and latency of the settings, each with the file that runs it."""

    files: dict[Setting, str]
    ap: dict[Setting, Floats]
    times_ms: dict[Setting, list[float]]

    def rows(self, reference: Setting, resamples: int) -> list[Row]:
        """A row per setting; every difference is from the reference, draw by draw."""
        theirs, rows = self.ap[reference], []
        for setting, values in self.ap.items():
            p50, p90 = np.percentile(self.times_ms[setting], [50, 90]).tolist()
            ap, change = (estimate(one, resamples) for one in (values, values - theirs))
            numbers = (*ap, *change, p50, p90)
            rows.append(Row(setting, self.files[setting], *numbers, setting == reference))
        return rows


def tradeoff(settings: TradeoffSettings) -> Tradeoff:
    """Measure all settings, print the best ones and choose one.

    Args:
        settings: every key of `rtdetr tradeoff`.

    Raises:
        UsageError: a key that the model or the device does not support.
        DataError: the data set cannot be used or has no boxes.
        WeightsError: the model cannot be opened, or knows other classes.
        BackendError: a device or a runtime is missing.
        QualityError: no setting meets max_drop, min_ap and max_ms.
    """
    leave_if_importing_main()
    run_path(settings.project, settings.name)  # reports a bad name before the detector runs
    detectors = _open(settings)
    dataset = match_model(_open_data(settings), detectors[False])
    detector = detectors[False]
    grid = make_grid(settings, detector.network, detector.preprocessing.size_hw, (*detectors,))
    detector.set_speed(decoder_layers=max(grid.decoder_layers))  # refuses more than there are
    for size_hw in grid.sizes_hw:
        preprocessing_for(detector, size_hw)  # refuses sizes that need too much memory
    save_dir = new_run_dir(settings.project, settings.name, settings.exist_ok)
    write_skipped(save_dir, dataset.skipped)
    settings = _with_recorded_family(settings, detector, save_dir)
    say(
        f"{detector.description}; {counted(len(dataset), 'image')}, "
        f"{counted(len(grid.settings), 'setting')}; {machine()}"
    )
    measured = _measure(detectors, grid, dataset, settings)
    if settings.backend:
        _add_runtimes(measured, grid, dataset, save_dir, settings)
    rows = marked(measured.rows(grid.reference, settings.resamples), settings)
    found = _report(Tradeoff(rows, save_dir), len(dataset), settings)
    if found.chosen is None:
        raise refusal(rows, settings)
    return found


def _open(settings: TradeoffSettings) -> dict[bool, TorchDetector]:
    """The detector in float32, and by True in 16 bits if wanted."""
    device = choose_device(settings.device)
    if settings.backend and device.type != "cpu":
        raise UsageError(f"backend={','.join(settings.backend)} runs on the CPU; give device=cpu")
    halves = [False]
    try:
        if settings.half is not False and half_dtype(device):
            halves.append(True)
    except BackendError:
        if settings.half:
            raise
    found = {}
    for half in halves:
        detector = load_detector(settings.model, settings.device, half=half, family=settings.family)
        assert isinstance(detector, TorchDetector)  # the settings refuse exported files
        found[half] = detector
    return found


def _with_recorded_family(
    settings: TradeoffSettings, detector: TorchDetector, save_dir: Path
) -> TradeoffSettings:
    """Settings with weights in a file of ours, which the processes that time need no key for."""
    if settings.family is None:
        return settings
    path = save_dir / f"{resolve_weights(settings.model).stem}.pt"
    config, weights = detector.network.config, detector.network.state_dict()
    save_checkpoint(path, Checkpoint(config, detector.names, weights, detector.preprocessing))
    return replace(settings, model=str(path), family=None)


def _open_data(settings: TradeoffSettings) -> DetectionDataset:
    config = load_data(settings.data, settings.download, settings.bad_images)
    dataset = open_split(config, settings.split)
    for note in dataset.notes:
        warn(note)
    dataset = select_classes(dataset, settings.classes, single_cls=False)
    if not dataset.num_boxes:
        raise DataError(f"split={settings.split} of {settings.data} has no boxes to compute AP on")
    return dataset


def _measure(
    detectors: dict[bool, TorchDetector],
    grid: Grid,
    dataset: DetectionDataset,
    settings: TradeoffSettings,
) -> _Measured:
    """AP and latency of the whole grid in PyTorch."""
    files = dict.fromkeys(grid.settings, str(resolve_weights(settings.model)))
    ap: dict[Setting, Floats] = {}
    for half, detector in detectors.items():
        ap |= ap_of_grid(detector, half, grid, dataset, settings)
    return _Measured(files, ap, time_settings(files, settings.device, settings.runs))


def _add_runtimes(
    measured: _Measured,
    grid: Grid,
    dataset: DetectionDataset,
    save_dir: Path,
    settings: TradeoffSettings,
) -> None:
    """Export the settings of the front to other runtimes; time them, and the front again."""
    best = [row.setting for row in front(measured.rows(grid.reference, settings.resamples))]
    for backend in settings.backend or ():
        for speed in best:
            half = speed.half and backend == "openvino"  # ONNX Runtime has no 16 bits on CPUs
            setting = replace(speed, backend=backend, half=half)
            if setting in measured.files:
                continue
            try:
                file = _export_file(setting, save_dir, settings)
            except BackendError as error:
                warn(f"{' '.join(setting.keys)} is left out: {error}")
                continue
            measured.files[setting] = str(file)
            detector = load_detector(str(file), "cpu")
            measured.ap[setting] = ap_of_file(detector, setting.size_hw, dataset, settings)
    again = {one: file for one, file in measured.files.items() if one in best or one.is_exported}
    measured.times_ms.update(time_settings(again, settings.device, settings.runs))


def _export_file(setting: Setting, save_dir: Path, settings: TradeoffSettings) -> Path:
    """Export a setting into the run folder and compare it with PyTorch."""
    height, width = setting.size_hw
    format_ = "openvino" if setting.backend == "openvino" else "onnx"
    ending = "_openvino_model" if format_ == "openvino" else ".onnx"
    stem = (
        f"{resolve_weights(settings.model).stem}_{height}x{width}_{setting.decoder_layers}_layers"
    )
    stem += f"_{setting.num_queries}_queries{'_half' if setting.half else ''}"
    with redirect_stdout(sys.stderr):  # the result of an export is log output here
        return export_file(
            ExportSettings(
                model=settings.model,
                format=format_,
                output=str(save_dir / f"{stem}{ending}"),
                imgsz=setting.imgsz,
                decoder_layers=setting.decoder_layers,
                num_queries=setting.num_queries,
                half=setting.half,
                data=settings.data if settings.split == "val" else None,
                download=settings.download,
            )
        )


def _export(row: Row, save_dir: Path, settings: TradeoffSettings) -> Path:
    """The file of the choice, which has one already if it was measured in another runtime."""
    if row.setting.is_exported:
        return Path(row.file)
    return _export_file(row.setting, save_dir, settings)


def _report(found: Tradeoff, num_images: int, settings: TradeoffSettings) -> Tradeoff:
    """Write and print the rows and the choice; export it if wanted, and return it with its file."""
    _write(found, num_images, settings)
    if not settings.json:
        _print_best(found)
    if num_images < FEW_IMAGES:
        warn(f"{num_images} images are too few for the intervals; give {FEW_IMAGES} or more")
    if settings.export and found.chosen:
        found = replace(found, file=_export(found.chosen, found.save_dir, settings))
    say(f"saved to {found.save_dir}")
    if settings.json:
        result_json(json.dumps(_to_dict(found, num_images, settings)))
    elif found.chosen:
        _print_choice(found, found.chosen, settings)
    return found


def _write(found: Tradeoff, num_images: int, settings: TradeoffSettings) -> None:
    """Write tradeoff.csv and draw tradeoff.png."""
    values = [row.to_dict() for row in found.rows]
    with atomic_write(found.save_dir / "tradeoff.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(values[0]))
        writer.writeheader()
        writer.writerows(values)
    if settings.plots:
        condition = f"{Path(settings.model).name}, {counted(num_images, 'image')}; {machine()}"
        points = [_point(row) for row in found.rows]
        save_tradeoff_figure(found.save_dir / "tradeoff.png", points, condition)


def _point(row: Row) -> TradeoffPoint:
    setting = row.setting
    return TradeoffPoint(
        name=f"{counted(setting.decoder_layers, 'layer')}, {setting.num_queries} queries",
        group=" ".join([f"{setting.imgsz_text} px", *setting.runtime_words]),
        latency_ms=row.p50_ms,
        ap=100 * row.ap,
        low=100 * row.ap_low,
        high=100 * row.ap_high,
        is_best=row.is_best,
        is_chosen=row.is_chosen,
    )


def _to_dict(found: Tradeoff, num_images: int, settings: TradeoffSettings) -> dict[str, Any]:
    """All numbers for JSON, AP in 0..1."""
    chosen = found.chosen
    return {
        "model": settings.model,
        "data": settings.data,
        "split": settings.split,
        "machine": machine(),
        "num_images": num_images,
        "resamples": settings.resamples,
        "seed": settings.seed,
        "rows": [row.to_dict() for row in found.rows],
        "chosen": chosen and chosen.setting.keys,
        "file": found.file and str(found.file),
        "save_dir": str(found.save_dir),
    }


def _print_best(found: Tradeoff) -> None:
    """Print the front and the reference in points of AP."""
    shown = [row for row in found.rows if row.is_best or row.is_reference]
    table("", COLUMNS, [_cells(row) for row in shown])
    say(f"{len(found.rows)} settings measured, the best ones are listed; all are in tradeoff.csv")


def _print_choice(found: Tradeoff, chosen: Row, settings: TradeoffSettings) -> None:
    """Print the choice, and the command that runs it."""
    own = next(row for row in found.rows if row.is_reference)
    result(
        f"chosen: {' '.join(chosen.setting.keys)}, {100 * chosen.ap:.1f} AP in "
        f"{chosen.p50_ms:.1f} ms, {own.p50_ms / chosen.p50_ms:.2f} times as fast as the "
        f"model's own setting with {100 * chosen.difference:+.1f} AP"
    )
    file = found.file or (chosen.file if chosen.setting.is_exported else None)
    words = [f"model={file}"] if file else [f"model={settings.model}", *chosen.setting.keys]
    result(shlex.join(["rtdetr", "predict", *words, "source=your.jpg"]))


def _cells(row: Row) -> list[str]:
    setting = row.setting
    note = "chosen" if row.is_chosen else "own" if row.is_reference else ""
    return [
        setting.imgsz_text,
        str(setting.decoder_layers),
        str(setting.num_queries),
        " ".join(setting.runtime_words) or setting.backend,
        f"{100 * row.ap:.1f}",
        f"{100 * row.ap_low:.1f} to {100 * row.ap_high:.1f}",
        f"{100 * row.difference:+.1f}",
        f"{100 * row.low:+.1f} to {100 * row.high:+.1f}",
        f"{row.p50_ms:.1f}",
        note,
    ]

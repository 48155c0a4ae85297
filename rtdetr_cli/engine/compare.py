"""Compare two detectors on a split: differences of AP with intervals, and a verdict in words."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rtdetr_cli.config.model_path import is_exported
from rtdetr_cli.config.settings.compare import CompareSettings
from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.core.console import result, result_json, say, table, warn
from rtdetr_cli.core.files import new_run_dir, run_path, user_path
from rtdetr_cli.core.status import counted
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.selection import select_classes
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.data.workers import leave_if_importing_main
from rtdetr_cli.engine.val import detect
from rtdetr_cli.engine.validating.comparison_page import COLUMNS, Pair, write_comparison
from rtdetr_cli.engine.validating.prediction_file import is_prediction_file, read_predictions
from rtdetr_cli.evaluation.coco import CocoEvaluator
from rtdetr_cli.evaluation.comparison import Comparison
from rtdetr_cli.evaluation.comparison import compare as compare_detections
from rtdetr_cli.evaluation.metrics import without_nan

IMAGE_COLUMNS = ("image", "F1 a", "F1 b", "errors a", "errors b")


def compare(settings: CompareSettings) -> Comparison:
    """Compare two detectors, or two files of detections, on the same images.

    Args:
        settings: every key of `rtdetr compare`.

    Raises:
        UsageError: a key that neither model uses.
        DataError: the data set or a file of detections cannot be used.
        WeightsError: a model cannot be opened, or knows other classes.
        BackendError: its runtime or device is missing.
    """
    leave_if_importing_main()
    run_path(settings.project, settings.name)  # reports a bad name before a detector runs
    dataset = open_split(
        load_data(settings.data, settings.download, settings.bad_images), settings.split
    )
    for note in dataset.notes:
        warn(note)
    dataset = select_classes(dataset, settings.classes, single_cls=False)
    a, b = (_detections(model, settings, dataset) for model in (settings.model, settings.other))
    say(f"drawing {counted(len(dataset), 'image')} {settings.resamples} times")
    found = compare_detections(a, b, settings.resamples, settings.seed)
    names = _short_names(settings.model, settings.other)
    if settings.report:
        run_dir = new_run_dir(settings.project, settings.name, settings.exist_ok)
        write_comparison(run_dir, settings, dataset, found, Pair(names, (a, b)))
        say(f"saved to {run_dir}")
    if settings.json:
        result_json(json.dumps(_to_dict(found, settings, names, dataset)))
    else:
        _print(found, settings, names, dataset)
    return found


def _detections(model: str, settings: CompareSettings, dataset: DetectionDataset) -> CocoEvaluator:
    """Run a model over the split, or read what it detected from a file."""
    if is_prediction_file(model):
        return read_predictions(user_path(model), dataset)
    return detect(
        ValSettings(
            model=model,
            imgsz=settings.imgsz,
            device=settings.device,
            timeout=settings.timeout if is_exported(model) else None,
            batch=settings.batch,
            workers=settings.workers,
            max_det=settings.max_det,
        ),
        dataset,
    )


def _short_names(a: str, b: str) -> tuple[str, str]:
    """The file names, or the paths where these are equal."""
    names = Path(a).name, Path(b).name
    return names if names[0] != names[1] else (a, b) if a != b else ("a", "b")


def _print(
    found: Comparison,
    settings: CompareSettings,
    names: tuple[str, str],
    dataset: DetectionDataset,
) -> None:
    """Print the tables in points of AP (0 to 100), the images and the verdict to stdout."""
    result(f"a: {settings.model}", f"b: {settings.other}")
    table("", COLUMNS, [one.cells() for one in found.metrics])
    if len(found.per_class) > 1:
        table("", ("AP of", *COLUMNS[1:]), [one.cells() for one in found.per_class])
    paths = _paths(dataset)
    shown = found.images[: settings.images]
    rows = [
        (paths[one.image_id], f"{one.f1_a:.2f}", f"{one.f1_b:.2f}", one.errors_a, one.errors_b)
        for one in shown
    ]
    if rows:
        table("", IMAGE_COLUMNS, rows)
        say(f"{len(found.images)} of {found.num_images} images differ, {len(rows)} are listed")
    result(found.verdict(*names))


def _paths(dataset: DetectionDataset) -> dict[int, str]:
    return {record.image_id: str(record.path) for record in dataset.records}


def _to_dict(
    found: Comparison,
    settings: CompareSettings,
    names: tuple[str, str],
    dataset: DetectionDataset,
) -> dict[str, Any]:
    """All numbers for JSON, AP in 0..1; undefined values are None."""
    paths = _paths(dataset)
    return {
        "a": settings.model,
        "b": settings.other,
        "verdict": found.verdict(*names),
        "is_shown": found.metrics[0].is_shown,
        "num_images": found.num_images,
        "resamples": found.resamples,
        "seed": settings.seed,
        "metrics": [without_nan(asdict(one)) for one in found.metrics],
        "per_class": [without_nan(asdict(one)) for one in found.per_class],
        "images": [
            {"path": paths[one.image_id], **asdict(one)} for one in found.images[: settings.images]
        ],
    }

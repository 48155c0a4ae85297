"""Measures a detector on a split: the twelve COCO numbers and a table per class."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rtdetr_cli.backends.load import Detector, preprocessing_for
from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.core.console import progress, result, result_json, say, table, warn
from rtdetr_cli.core.distributed import all_gather, run_on_main
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.files import atomic_write, new_run_dir, run_path
from rtdetr_cli.core.structures import Detections
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.loader import EvalLoader, eval_loader, explain_lost_worker
from rtdetr_cli.data.selection import select_classes
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.engine.exporting.runtime_cache import open_detector
from rtdetr_cli.evaluation.coco import CocoEvaluator
from rtdetr_cli.evaluation.metrics import STAT_NAMES, TABLE_COLUMNS, Metrics

__all__ = ["Metrics", "draw_curves", "evaluate", "print_metrics", "validate"]


def validate(settings: ValSettings) -> Metrics:
    """Run a detector over a split and score it.

    Args:
        settings: every key of `rtdetr val`.

    Raises:
        DataError: the data set cannot be used.
        WeightsError: the model cannot be opened, or knows other classes.
        BackendError: its runtime or device is missing.
    """
    run_path(settings.project, settings.name)  # a wrong name is found before, not after
    dataset = open_split(load_data(settings.data), settings.split)
    for note in dataset.notes:
        warn(note)
    dataset = select_classes(dataset, settings.classes, settings.single_cls)
    detector = open_detector(settings)
    check_classes(detector, dataset)
    preprocessing = preprocessing_for(detector, settings.imgsz)
    say(f"{detector.description}; {len(dataset)} images, {dataset.num_boxes} boxes")
    loader = eval_loader(dataset, settings.batch, preprocessing, settings.workers)
    rows: list[dict[str, Any]] | None = [] if settings.save_json else None
    metrics = evaluate(detector, dataset, loader, settings.conf, settings.max_det, rows)
    if settings.plots or rows is not None:
        _write(settings, metrics, rows)
    if settings.json:
        result_json(json.dumps(metrics.to_dict()))
    else:
        print_metrics(metrics)
    return metrics


@explain_lost_worker()
def evaluate(
    detector: Detector,
    dataset: DetectionDataset,
    loader: EvalLoader,
    conf: float = 0.0,
    max_det: int = 300,
    rows: list[dict[str, Any]] | None = None,
) -> Metrics:
    """Score a detector on the batches of a split; `rows` collects COCO result entries.

    Many processes, each with its own batches, all get the metrics of the whole split.
    """
    evaluator = CocoEvaluator(dataset.ground_truth(), dataset.category_ids)
    seconds, num_images = 0.0, 0
    for batch in progress(loader, len(loader), "val"):
        start = time.perf_counter()
        found = detector.detect(batch.images, batch.sizes_hw, max_det)
        seconds += time.perf_counter() - start
        num_images += len(batch)
        for image_id, detections in zip(batch.image_ids, found, strict=True):
            kept = detections.keep(detections.scores >= conf)
            evaluator.update(image_id, kept)
            if rows is not None:
                rows += _result_rows(image_id, kept, dataset.category_ids)
    for share in all_gather(evaluator.found):
        evaluator.merge(share)
    metrics = run_on_main(evaluator.compute)
    metrics.speed = {"inference": 1000 * seconds / max(num_images, 1)}
    return metrics


def print_metrics(metrics: Metrics) -> None:
    """The per-class table and the twelve numbers, on stdout."""
    table("", TABLE_COLUMNS, metrics.table())
    numbers = (f"{name} {metrics.stats[name]:.4f}" for name in STAT_NAMES)
    result("  ".join(numbers))
    for remark in metrics.remarks:
        warn(remark)
    if metrics.speed:
        say(f"{metrics.speed['inference']:.1f} ms per image in the detector")


def check_classes(detector: Detector, dataset: DetectionDataset) -> None:
    """The detector's classes must be those of the data set.

    Raises:
        UsageError: their number differs.
    """
    if len(detector.names) != len(dataset.names):
        raise UsageError(
            f"the model knows {len(detector.names)} classes ({_some(detector.names)}) and the "
            f"data set {len(dataset.names)} ({_some(dataset.names)})"
        )
    other = [i for i, name in dataset.names.items() if detector.names.get(i) != name]
    if other:
        index = other[0]
        warn(
            f"class {index} is {detector.names.get(index)!r} in the model and "
            f"{dataset.names[index]!r} in the data set; classes are compared by number"
        )


def _some(names: dict[int, str]) -> str:
    shown = ", ".join(list(names.values())[:3])
    return f"{shown}, ..." if len(names) > 3 else shown


def _result_rows(
    image_id: int, detections: Detections, category_ids: list[int]
) -> list[dict[str, Any]]:
    """Detections as COCO result entries: bbox is [x, y, width, height] in pixels."""
    corners = detections.boxes_xyxy.double()
    boxes = corners.clone()
    boxes[:, 2:] -= corners[:, :2]
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [round(value, 3) for value in box],
            "score": round(score, 6),
        }
        for box, score, label in zip(
            boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True
        )
    ]


def _write(settings: ValSettings, metrics: Metrics, rows: list[dict[str, Any]] | None) -> None:
    run_dir = new_run_dir(settings.project, settings.name, settings.exist_ok)
    if rows is not None:
        with atomic_write(run_dir / "predictions.json") as path:
            path.write_text(json.dumps(rows))
    if settings.plots:
        draw_curves(run_dir, metrics)
    say(f"saved to {run_dir}")


def draw_curves(run_dir: Path, metrics: Metrics) -> None:
    """Curves and confusion matrices into the run folder."""
    from rtdetr_cli.evaluation.report import save_plots

    save_plots(run_dir, metrics)

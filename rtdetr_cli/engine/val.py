"""Score a detector on a split: the twelve COCO numbers and a table per class."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from rtdetr_cli.backends.load import Detector, preprocessing_for
from rtdetr_cli.backends.single_class import SingleClassDetector
from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.core.callbacks import Callbacks
from rtdetr_cli.core.class_names import class_indices
from rtdetr_cli.core.console import progress, result, result_json, say, table, warn
from rtdetr_cli.core.distributed import all_gather, run_on_main
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.files import new_run_dir, run_path
from rtdetr_cli.core.status import Status, counted
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.loader import EvalLoader
from rtdetr_cli.data.problems import write_skipped
from rtdetr_cli.data.selection import (
    SINGLE_NAME,
    match_classes,
    merge_classes,
    select_classes,
    unknown_classes,
)
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.data.workers import explain_lost_worker, leave_if_importing_main
from rtdetr_cli.engine.exporting.runtime_cache import open_detector
from rtdetr_cli.engine.predicting.augmentation import (
    BatchDetector,
    detect_in_variants,
    find_variants,
    further_sizes,
)
from rtdetr_cli.engine.session.remember import with_remembered
from rtdetr_cli.engine.session.states import ValState
from rtdetr_cli.engine.training.run_pictures import draw_validation
from rtdetr_cli.engine.validating.baseline import (
    Baseline,
    differences,
    print_differences,
    read_baseline,
    refuse_quality,
)
from rtdetr_cli.engine.validating.calibrate import Calibrated, calibrate, find_target
from rtdetr_cli.engine.validating.page import write_report
from rtdetr_cli.engine.validating.prediction_file import write_predictions
from rtdetr_cli.evaluation.coco import CocoEvaluator
from rtdetr_cli.evaluation.matching import Found
from rtdetr_cli.evaluation.metrics import STAT_NAMES, TABLE_COLUMNS, Metrics, without_nan
from rtdetr_cli.evaluation.report import save_plots, save_reliability

__all__ = ["Metrics", "draw_curves", "evaluate", "match_model", "print_metrics", "validate"]

STAGES = ("preprocess", "inference", "loss", "postprocess")
"""Stages of a validation, under the names of Ultralytics; the loss is not computed and takes 0."""

ERROR_COLUMNS = ("type of error", "count", "costs AP50")


def validate(settings: ValSettings, callbacks: Callbacks | None = None) -> Metrics:
    """Run a detector over a split and score it.

    Args:
        settings: every key of `rtdetr val`.
        callbacks: functions called at its events.

    Raises:
        UsageError: no data set is given, and the weights do not say what they were trained on.
        DataError: the data set cannot be used.
        WeightsError: the model cannot be opened, or knows other classes.
        BackendError: its runtime or device is missing.
        QualityError: a metric meets a condition of `fail_if`.
        StorageError: no space left or no permission.
    """
    leave_if_importing_main()
    run_path(settings.project, settings.name)  # reports a bad name before the detector runs
    target = find_target(settings.model) if settings.calibrate else None
    settings = with_remembered(settings)
    config = load_data(settings.data or "", settings.download, settings.bad_images)
    dataset = open_split(config, settings.split)
    for note in dataset.notes:
        warn(note)
    dataset = select_classes(replace(dataset, notes=[]), settings.classes, single_cls=False)
    baseline = _baseline(settings, dataset)
    dataset, detector, loader, detect = open_model(settings, dataset)
    if target:
        target.check_classes(dataset.names)
    state = ValState(loader, callbacks or Callbacks(), settings)
    evaluator, speed = _run(detect, dataset, state, settings.conf)
    metrics = state.end(_score(evaluator, speed))
    metrics.remarks += dataset.notes
    metrics.errors = evaluator.error_costs() if settings.errors or settings.report else None
    metrics.baseline = differences(baseline, metrics, evaluator) if baseline else None
    if settings.plots or settings.save_json or settings.report or dataset.skipped:
        metrics.save_dir = new_run_dir(settings.project, settings.name, settings.exist_ok)
        write_skipped(metrics.save_dir, dataset.skipped)
        if settings.save_json:
            write_predictions(metrics.save_dir, dataset, evaluator.predictions())
        if settings.plots:
            draw_curves(metrics.save_dir, metrics)
            save_reliability(metrics.save_dir / "reliability.png", metrics.calibration)
            draw_validation(metrics.save_dir, loader, detector.names, detect)
        if settings.report:
            write_report(settings, detector.description, dataset, evaluator, metrics)
        say(f"saved to {metrics.save_dir}")
    _print(metrics, calibrate(target, settings, metrics) if target else None, settings.json)
    if settings.fail_if:
        refuse_quality(settings.fail_if, metrics)
    return metrics


def _print(metrics: Metrics, calibrated: Calibrated | None, as_json: bool) -> None:
    """Print the metrics and what was written into the weights."""
    if as_json:
        values = metrics.to_dict()
        if calibrated:
            values["calibration"] |= without_nan(calibrated.to_dict())
        result_json(json.dumps(values))
        return
    print_metrics(metrics)
    if metrics.calibration.bins:
        result(f"ECE {metrics.calibration.ece:.4f}")
    if calibrated:
        calibrated.print(metrics)


def open_model(
    settings: ValSettings, dataset: DetectionDataset
) -> tuple[DetectionDataset, Detector, EvalLoader, BatchDetector]:
    """Open a detector; number the classes of a split as it does, and read images as it needs."""
    detector = open_detector(settings)
    if settings.single_cls:
        detector = _single_class(detector, dataset, settings.classes)
        dataset = merge_classes(dataset)
    dataset = match_model(dataset, detector)
    preprocessing = preprocessing_for(detector, settings.imgsz)
    say(
        f"{detector.description}; {counted(len(dataset), 'image')}, "
        f"{counted(dataset.num_boxes, 'box', 'boxes')}"
    )
    variants = find_variants(detector, preprocessing.size_hw, settings.augment)
    further = further_sizes(preprocessing.size_hw, variants)
    loader = EvalLoader(
        dataset, settings.batch, preprocessing, settings.workers, detector.device, further
    )
    detect = partial(detect_in_variants, detector, max_det=settings.max_det, variants=variants)
    return dataset, detector, loader, detect


def _single_class(
    detector: Detector, dataset: DetectionDataset, classes: Sequence[int | str] | None
) -> Detector:
    """Merge the classes of a detector; those of `classes`, found by name, if these are given."""
    if len(detector.names) == 1:
        return detector
    wanted = class_indices(classes or (), dataset.names, "data set")
    names = {dataset.names[index] for index in wanted}
    kept = [index for index, name in detector.names.items() if name in names]
    if classes is not None and not kept:
        raise UsageError(f"classes: the model knows none of {', '.join(sorted(names))}")
    return SingleClassDetector(detector, SINGLE_NAME, None if classes is None else kept)


def _baseline(settings: ValSettings, dataset: DetectionDataset) -> Baseline | None:
    if settings.baseline is None:
        return None
    return read_baseline(settings.baseline, select_classes(dataset, None, settings.single_cls))


def detect(settings: ValSettings, dataset: DetectionDataset) -> CocoEvaluator:
    """The detections of a model on a split, in the classes of the split; for `rtdetr compare`."""
    matched, _, loader, detect = open_model(settings, replace(dataset, notes=[]))
    for note in matched.notes:
        warn(note)
    state = ValState(loader, Callbacks())
    found = _run(detect, matched, state, settings.conf)[0].found
    evaluator = CocoEvaluator(dataset.ground_truth(), dataset.category_ids)
    evaluator.merge(
        {image: rows[np.isin(rows[:, 6], dataset.category_ids)] for image, rows in found.items()}
    )
    return evaluator


def run_detector(settings: ValSettings, detector: Detector, dataset: DetectionDataset) -> Found:
    """The detections in the images of a split, in the classes of the model; for `rtdetr check`."""
    unlabelled = replace(
        dataset, names=detector.names, category_ids=list(detector.names), annotations=[]
    )
    preprocessing = preprocessing_for(detector, settings.imgsz)
    loader = EvalLoader(
        unlabelled, settings.batch, preprocessing, settings.workers, detector.device
    )
    detect = partial(detect_in_variants, detector)
    found, _ = _run(detect, unlabelled, ValState(loader, Callbacks()))[0].tables()
    return found


def evaluate(
    detector: Detector,
    dataset: DetectionDataset,
    loader: EvalLoader,
    callbacks: Callbacks | None = None,
) -> Metrics:
    """Score a detector on the batches of a split.

    With several processes, each runs its own batches and all get the metrics of the whole split.
    """
    state = ValState(loader, callbacks or Callbacks())
    return state.end(_score(*_run(partial(detect_in_variants, detector), dataset, state)))


@explain_lost_worker()
def _run(
    detect: BatchDetector,
    dataset: DetectionDataset,
    loader: ValState,
    conf: float = 0.0,
) -> tuple[CocoEvaluator, dict[str, float]]:
    """Run a detector over the batches of this process.

    Returns:
        The detections, and the milliseconds per image of each stage. Preprocessing is measured
        where it happens, in the loading processes; decoding of files is not part of it.
    """
    evaluator = CocoEvaluator(dataset.ground_truth(), dataset.category_ids)
    seconds, num_images = dict.fromkeys(STAGES, 0.0), 0

    def status() -> Status:
        ms = 1000 * sum(seconds.values()) / num_images
        return Status(beside=(counted(num_images, "image"), f"{ms:.1f} ms an image"))

    for batch in progress(loader, len(loader), "val", status):
        start = time.perf_counter()
        found = detect(batch)
        detected = time.perf_counter()
        for image_id, detections in zip(batch.image_ids, found, strict=True):
            evaluator.update(image_id, detections.keep(detections.scores >= conf))
        seconds["preprocess"] += batch.preprocess_s
        seconds["inference"] += detected - start
        seconds["postprocess"] += time.perf_counter() - detected
        num_images += len(batch)
    return evaluator, {stage: 1000 * seconds[stage] / max(num_images, 1) for stage in STAGES}


def _score(evaluator: CocoEvaluator, speed: dict[str, float]) -> Metrics:
    for share in all_gather(evaluator.found):
        evaluator.merge(share)
    metrics = run_on_main(evaluator.compute)
    metrics.speed = speed
    return metrics


def print_metrics(metrics: Metrics) -> None:
    """Print the per-class table and the twelve numbers to stdout."""
    table("", TABLE_COLUMNS, metrics.table())
    numbers = [f"{name} {metrics.stats[name]:.4f}" for name in STAT_NAMES]
    result("  ".join(numbers[:6]), "  ".join(numbers[6:]))  # each fits 80 columns
    if metrics.errors:
        rows = [(one.kind, one.count, f"{one.cost:.4f}") for one in metrics.errors]
        table("", ERROR_COLUMNS, rows)
    if metrics.baseline:
        print_differences(metrics.baseline)
    for remark in metrics.remarks:
        warn(remark)
    shown = (stage for stage in STAGES if stage != "loss")
    stages = ", ".join(f"{metrics.speed[stage]:.1f} ms {stage}" for stage in shown)
    say(f"Speed: {stages} per image")


def match_model(dataset: DetectionDataset, detector: Detector) -> DetectionDataset:
    """The data set with the classes of the detector, found by name, and without the others.

    A note says which these are.

    Raises:
        UsageError: the detector knows none of the classes.
    """
    matched = match_classes(dataset, detector.names)
    unknown = unknown_classes(dataset, detector.names)
    other = [i for i, name in matched.names.items() if detector.names[i] != name]
    if other:
        index = other[0]
        warn(
            f"class {index} is {detector.names[index]!r} in the model and "
            f"{dataset.names[index]!r} in the data set; classes are compared by number"
        )
    elif matched is not dataset:
        common = len(dataset.names) - len(unknown)
        say(
            f"classes of the data set are matched to those of the model by name: {common} of "
            f"{len(dataset.names)}, of {len(detector.names)} that the model has"
        )
    if not unknown:
        return matched
    num_boxes = counted(dataset.num_boxes - matched.num_boxes, "box", "boxes")
    remark = (
        f"the model does not know {', '.join(unknown)}; {num_boxes} of the data set are not counted"
    )
    return replace(matched, notes=[*matched.notes, remark])


def draw_curves(run_dir: Path, metrics: Metrics) -> None:
    """Draw curves and confusion matrices into the run folder."""
    save_plots(run_dir, metrics)

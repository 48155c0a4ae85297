"""report.html of `rtdetr val report=true`: what was run, all numbers, curves, the worst images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from rtdetr_cli.config.settings.command import as_command
from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.engine.validating.baseline import COLUMNS as BASELINE_COLUMNS
from rtdetr_cli.engine.validating.judged_images import judged_card, verdict_legend
from rtdetr_cli.evaluation.coco import CocoEvaluator
from rtdetr_cli.evaluation.errors import ADVICE
from rtdetr_cli.evaluation.figures import figure_as_png
from rtdetr_cli.evaluation.image_scores import ImageScores, score_images
from rtdetr_cli.evaluation.metrics import STAT_NAMES, TABLE_COLUMNS, Difference, Metrics
from rtdetr_cli.evaluation.report import curve_figures, reliability_figure
from rtdetr_cli.report.images import png
from rtdetr_cli.report.page import write_page
from rtdetr_cli.report.parts import (
    Cell,
    Html,
    charts,
    facts,
    gallery,
    heading,
    paragraph,
    table,
    tiles,
)
from rtdetr_cli.report.run import PAGE, run_facts, short_path

WORST_IMAGES = 24
_CURVE_SIZE = (7.0, 4.3)
"""Inches; smaller than in the run folder, so that two beside each other can be read."""
_NAMED_CLASSES = 12
"""Above this number of classes one confusion matrix has the whole width."""
_MIXED_PAIRS = 10
_TILES = ("AP", "AP50", "AP75", "precision", "recall")
_MEANING = {
    "AP": "mean over IoU 0.50 to 0.95 and over the classes",
    "AP50": "IoU 0.50 or more",
    "AP75": "IoU 0.75 or more",
    "APs": "objects below 32x32 pixels",
    "APm": "objects up to 96x96 pixels",
    "APl": "objects above",
    "AR1": "recall with one detection an image and class",
    "AR10": "with 10",
    "AR100": "with 100",
    "ARs": "with 100, objects below 32x32 pixels",
    "ARm": "with 100, objects up to 96x96 pixels",
    "ARl": "with 100, objects above",
}


def write_report(
    settings: ValSettings,
    description: str,
    dataset: DetectionDataset,
    evaluator: CocoEvaluator,
    metrics: Metrics,
) -> None:
    """Write the page into the run folder, `metrics.save_dir`.

    Args:
        settings: of the run.
        description: of the detector.
        dataset: the split.
        evaluator: with the detections.
        metrics: their metrics.

    Raises:
        DataError: an image cannot be decoded.
        StorageError: no space left or no permission.
    """
    known = [
        ("model", settings.model),
        ("runs as", description),
        ("data", f"{settings.data}, split {settings.split}"),
        ("images", f"{metrics.num_images:,} with {int(metrics.nt_per_class.sum()):,} boxes"),
        ("speed", _speed(metrics)),
        *run_facts(as_command(settings)),
    ]
    parts = [
        tiles([(name, _number(metrics.value(name))) for name in _TILES]),
        *(paragraph(remark, "remark") for remark in metrics.remarks),
        facts(known),
        *_numbers(metrics),
        *_charts(metrics),
        *_worst(score_images(evaluator), dataset, metrics.names),
    ]
    title = f"{Path(settings.model).name} on {short_path(Path(settings.data or ''))}"
    write_page((metrics.save_dir or Path()) / PAGE, f"Validation of {title}", parts)


def difference_rows(found: Sequence[Difference]) -> list[list[str | Cell]]:
    """Rows of a table, with a color for a difference whose interval excludes 0."""
    rows = []
    for one in found:
        name, a, b, difference, *interval = one.cells()
        shown = Cell(difference, "note") if one.is_shown else difference
        rows.append([name, a, b, shown, *interval])
    return rows


def _numbers(metrics: Metrics) -> Iterator[Html]:
    yield heading("COCO metrics")
    rows = [(name, _number(metrics.value(name)), _MEANING[name]) for name in STAT_NAMES]
    yield table(("metric", "value", "meaning"), rows, text_columns=(0, 2))
    if metrics.baseline:
        yield heading("Difference from the baseline")
        yield table(BASELINE_COLUMNS, difference_rows(metrics.baseline))
        yield paragraph("A difference whose interval contains 0 may be chance.", "muted")
    yield heading("Classes")
    yield table(TABLE_COLUMNS, metrics.table())
    yield paragraph(
        "Precision and recall at the confidence with the best F1 of all classes, IoU 0.5; the last "
        "column has the confidence with the best F1 of each class.",
        "muted",
    )
    if metrics.errors:
        yield heading("Errors and what they cost")
        errors = zip(metrics.errors, ADVICE, strict=True)
        cells = [(one.kind, str(one.count), f"{one.cost:.4f}", advice) for one, advice in errors]
        columns = ("type of error", "count", "costs AP50", "what often helps")
        yield table(columns, cells, text_columns=(0, 3))
        yield paragraph(
            "The cost is the rise of AP50 if all errors of this type were mended and the others "
            "stayed (TIDE, arXiv 2008.08115). Costs do not add up: one error hides another.",
            "muted",
        )


def _charts(metrics: Metrics) -> Iterator[Html]:
    yield heading("Curves")
    curves = curve_figures(metrics, _CURVE_SIZE).items()
    yield charts([(name, png(figure_as_png(figure))) for name, figure in curves])
    yield heading("Scores")
    scores = metrics.calibration
    drawn = [("reliability", png(figure_as_png(reliability_figure(scores, _CURVE_SIZE))))]
    yield charts(drawn)
    yield paragraph(
        f"Precision of the detections by their score. ECE {_number(scores.ece)}: the mean distance "
        "from the dashed line, on which a score is the probability that a detection is right; "
        "rtdetr val calibrate=true brings the scores closer to it.",
        "muted",
    )
    yield heading("Confusion matrix")
    matrix, is_large = metrics.confusion_matrix, len(metrics.names) > _NAMED_CLASSES
    matrices = {"shares of each true class": True} | ({} if is_large else {"counts": False})
    drawn = [(name, png(figure_as_png(matrix.figure(one)))) for name, one in matrices.items()]
    yield charts(drawn, wide=is_large)
    mixed = matrix.most_mixed(_MIXED_PAIRS)
    if mixed:
        yield heading("Classes that are mixed up", level=3)
        rows = [(true, predicted, str(count)) for true, predicted, count in mixed]
        yield table(("true class", "detected as", "boxes"), rows, text_columns=(0, 1))


def _worst(scores: ImageScores, dataset: DetectionDataset, names: dict[int, str]) -> Iterator[Html]:
    paths = {record.image_id: record.path for record in dataset.records}
    worst = scores.worst(WORST_IMAGES)
    num_wrong = int((scores.errors > 0).sum())
    yield heading("Worst images")
    yield paragraph(
        f"{num_wrong:,} of {len(scores.image_ids):,} images have an error at confidence "
        f"{scores.confidence:.3f}, the one with the best F1; "
        f"{len(worst)} with most errors are shown. Only boxes with an error have a label."
    )
    yield verdict_legend()
    cards = []
    for image_id in worst:
        at = scores.position(image_id)
        caption = (
            f"{short_path(paths[image_id])}: {scores.missed[at]} missed, "
            f"{scores.false[at]} false, F1 {scores.f1[at]:.2f}"
        )
        truth, found = scores.boxes(image_id)
        panels = [("Ground truth", truth), ("Detections", found)]
        cards.append(judged_card(caption, paths[image_id], panels, names))
    if cards:
        yield gallery(cards)


def _speed(metrics: Metrics) -> str:
    stages = {name: ms for name, ms in metrics.speed.items() if name != "loss"}
    return ", ".join(f"{ms:.1f} ms {name}" for name, ms in stages.items()) + " per image"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"

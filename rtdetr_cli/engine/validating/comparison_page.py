"""report.html of `rtdetr compare report=true`: verdict, intervals, the images that differ most."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rtdetr_cli.config.settings.command import as_command
from rtdetr_cli.config.settings.compare import CompareSettings
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.engine.validating.judged_images import judged_card, verdict_legend
from rtdetr_cli.engine.validating.page import difference_rows
from rtdetr_cli.evaluation.coco import CocoEvaluator
from rtdetr_cli.evaluation.comparison import Comparison
from rtdetr_cli.evaluation.image_scores import ImageScores, JudgedBox, Verdict, score_images
from rtdetr_cli.report.page import write_page
from rtdetr_cli.report.parts import Html, facts, gallery, heading, paragraph, table
from rtdetr_cli.report.run import PAGE, run_facts, short_path

COLUMNS = ("AP in points", "a", "b", "b - a", "95 % from", "to")
MAX_IMAGES = 24


class Pair(NamedTuple):
    """Both sides of a comparison: their names for the page, and their detections."""

    names: tuple[str, str]
    evaluators: tuple[CocoEvaluator, CocoEvaluator]


def write_comparison(
    run_dir: Path,
    settings: CompareSettings,
    dataset: DetectionDataset,
    found: Comparison,
    pair: Pair,
) -> None:
    """Write the page into a run folder.

    Args:
        run_dir: the folder.
        settings: of the run.
        dataset: the split.
        found: the comparison.
        pair: what was compared.

    Raises:
        DataError: an image cannot be decoded.
        StorageError: no space left or no permission.
    """
    known = [
        ("a", settings.model),
        ("b", settings.other),
        ("data", f"{settings.data}, split {settings.split}"),
        ("images", f"{found.num_images:,}, drawn {found.resamples:,} times with replacement"),
        *run_facts(as_command(settings)),
    ]
    parts = [
        paragraph(found.verdict(*pair.names), "verdict"),
        facts(known),
        *_tables(found),
        *_images(found, dataset, pair, min(settings.images, MAX_IMAGES)),
    ]
    write_page(run_dir / PAGE, f"{pair.names[0]} (a) and {pair.names[1]} (b)", parts)


def _tables(found: Comparison) -> Iterator[Html]:
    yield heading("Differences")
    yield table(COLUMNS, difference_rows(found.metrics))
    if len(found.per_class) > 1:
        yield heading("Classes")
        yield table(("AP of", *COLUMNS[1:]), difference_rows(found.per_class))
    yield paragraph(
        "A difference whose interval contains 0 may be chance; of 20 classes without a true "
        "difference, one has an interval without 0 on average.",
        "muted",
    )


def _images(found: Comparison, dataset: DetectionDataset, pair: Pair, limit: int) -> Iterator[Html]:
    a, b = map(score_images, pair.evaluators)
    shown = found.images[:limit]
    yield heading("Images that differ most")
    yield paragraph(
        f"{len(found.images):,} of {found.num_images:,} images differ; {len(shown)} with the "
        f"largest difference of F1 are shown, each detector at its best confidence (a "
        f"{a.confidence:.3f}, b {b.confidence:.3f}). Boxes that are missed are drawn from the "
        "ground truth; only boxes with an error have a label."
    )
    yield verdict_legend()
    paths = {record.image_id: record.path for record in dataset.records}
    cards = []
    for one in shown:
        title_a = f"{pair.names[0]}: F1 {one.f1_a:.2f}, errors: {one.errors_a}"
        title_b = f"{pair.names[1]}: F1 {one.f1_b:.2f}, errors: {one.errors_b}"
        panels = [(title_a, _boxes(a, one.image_id)), (title_b, _boxes(b, one.image_id))]
        path = paths[one.image_id]
        cards.append(judged_card(short_path(path), path, panels, dataset.names))
    if cards:
        yield gallery(cards)


def _boxes(scores: ImageScores, image_id: int) -> list[JudgedBox]:
    """The detections of an image, and the boxes that they miss."""
    truth, found = scores.boxes(image_id)
    return [*found, *(one for one in truth if one.verdict is Verdict.MISSED)]

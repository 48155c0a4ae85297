"""AP of many settings of one detector: backbone and encoder run once per image and size."""

from __future__ import annotations

from collections.abc import Iterator

from rtdetr_cli.backends.load import Detector, preprocessing_for
from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.config.settings.tradeoff import TradeoffSettings
from rtdetr_cli.core.console import progress
from rtdetr_cli.core.detections import Detections
from rtdetr_cli.core.structures import Batch
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.loader import EvalLoader
from rtdetr_cli.data.workers import explain_lost_worker
from rtdetr_cli.engine.tradeoffs.rows import Grid, Setting
from rtdetr_cli.evaluation.coco import CocoEvaluator
from rtdetr_cli.evaluation.comparison import resampled_ap
from rtdetr_cli.evaluation.matching import Floats

Found = list[tuple[int, Detections]]
"""Image ids and detections of a split."""


def ap_of_grid(
    detector: TorchDetector,
    half: bool,
    grid: Grid,
    dataset: DetectionDataset,
    settings: TradeoffSettings,
) -> Iterator[tuple[Setting, Floats]]:
    """AP of every setting of the grid in one precision.

    The detections of one size are in memory at a time.

    Args:
        detector: in that precision.
        half: whether it computes in 16 bits.
        grid: the settings.
        dataset: the split, with the classes of the detector.
        settings: batch, workers, max_det, resamples and seed.

    Yields:
        A setting, and (1 + G + R,) AP for `comparison.estimate`.
    """
    for size_hw in grid.sizes_hw:
        wanted = [one for one in grid.settings if (one.size_hw, one.half) == (size_hw, half)]
        found: dict[Setting, Found] = {one: [] for one in wanted}
        detector.set_speed(decoder_layers=max(grid.decoder_layers))
        for batch in _batches(detector, size_hw, dataset, settings):
            by_speed = detector.detect_at_every_speed(
                batch.images, batch.sizes_hw, grid.num_queries, settings.max_det
            )
            for one in wanted:
                detections = by_speed[one.decoder_layers, one.num_queries]
                found[one] += zip(batch.image_ids, detections, strict=True)
        for one in wanted:
            yield one, _resampled(found.pop(one), dataset, settings)


def ap_of_file(
    detector: Detector,
    size_hw: tuple[int, int],
    dataset: DetectionDataset,
    settings: TradeoffSettings,
) -> Floats:
    """(1 + G + R,) AP of an exported file; see `ap_of_grid`."""
    found: Found = []
    for batch in _batches(detector, size_hw, dataset, settings):
        detections = detector.detect(batch.images, batch.sizes_hw, settings.max_det)
        found += zip(batch.image_ids, detections, strict=True)
    return _resampled(found, dataset, settings)


def _batches(
    detector: Detector,
    size_hw: tuple[int, int],
    dataset: DetectionDataset,
    settings: TradeoffSettings,
) -> Iterator[Batch]:
    preprocessing = preprocessing_for(detector, size_hw)
    loader = EvalLoader(dataset, settings.batch, preprocessing, settings.workers)
    with explain_lost_worker():
        yield from progress(loader, len(loader), f"AP at {size_hw[0]}x{size_hw[1]}")


def _resampled(found: Found, dataset: DetectionDataset, settings: TradeoffSettings) -> Floats:
    evaluator = CocoEvaluator(dataset.ground_truth(), dataset.category_ids)
    for image_id, detections in found:
        evaluator.update(image_id, detections)
    return resampled_ap(evaluator, settings.resamples, settings.seed)

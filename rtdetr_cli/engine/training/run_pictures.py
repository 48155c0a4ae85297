"""Images of a training: augmented batches, detections on validation images, label statistics."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import torch

from rtdetr_cli.backends.load import Detector
from rtdetr_cli.core.box_ops import cxcywh_to_xyxy
from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.core.image import Pixels
from rtdetr_cli.core.opencv import cv2
from rtdetr_cli.core.results import Boxes, DrawStyle
from rtdetr_cli.core.structures import Batch, Detections, Target
from rtdetr_cli.data.dataset import DetectionDataset, Floats
from rtdetr_cli.data.loader import EvalLoader
from rtdetr_cli.evaluation.figures import save_figure, short_name
from rtdetr_cli.media.draw import draw_boxes

MOSAIC_IMAGES = 16
MOSAIC_SIDE = 1280
SHOWN_SCORE = 0.25


def draw_batch(path: Path, batch: Batch, names: dict[int, str]) -> None:
    """Draw a training batch as the network sees it, with its boxes."""
    found = [_as_detections(target, batch) for target in batch.targets]
    _mosaic(path, batch, found, names, DrawStyle(conf=False))


def draw_validation(run_dir: Path, batches: EvalLoader, detector: Detector) -> None:
    """Draw the first validation batches: `val_batch*_labels.jpg` and `val_batch*_pred.jpg`."""
    for number, batch in enumerate(islice(batches, 3)):
        draw_batch(run_dir / f"val_batch{number}_labels.jpg", batch, detector.names)
        height, width = batch.images.shape[-2:]
        found = detector.detect(batch.images, [(height, width)] * len(batch))
        shown = [one.keep(one.scores > SHOWN_SCORE) for one in found]
        path = run_dir / f"val_batch{number}_pred.jpg"
        _mosaic(path, batch, shown, detector.names, DrawStyle())


def draw_labels(run_dir: Path, dataset: DetectionDataset) -> None:
    """Plot boxes per class and relative box sizes into `labels.jpg`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    real = [(record, ~record.iscrowd) for record in dataset.records]
    labels = np.concatenate([record.labels[kept] for record, kept in real])
    sizes = np.concatenate(
        [_relative_sizes(record.boxes_xyxy[kept], record.size_hw) for record, kept in real]
    )
    figure = Figure(figsize=(11, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    counts = np.bincount(labels, minlength=len(dataset.names))
    left.bar(range(len(counts)), counts)
    left.set_ylabel("boxes")
    if len(counts) <= 30:
        names = [short_name(name) for name in dataset.names.values()]
        left.set_xticks(range(len(counts)), names, rotation=60, ha="right", parse_math=False)
    histogram = right.hist2d(sizes[:, 0], sizes[:, 1], bins=50, range=((0, 1), (0, 1)), cmin=1)
    figure.colorbar(histogram[3], ax=right, label="boxes")
    right.set_xlabel("width / image width")
    right.set_ylabel("height / image height")
    save_figure(run_dir / "labels.jpg", figure, dpi=100)


def _relative_sizes(boxes_xyxy: Floats, size_hw: tuple[int, int]) -> Floats:
    extent = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    return np.asarray(extent / np.array(size_hw[::-1]), np.float32)


def _as_detections(target: Target, batch: Batch) -> Detections:
    height, width = batch.images.shape[-2:]
    scale = torch.tensor([width, height, width, height])
    boxes_xyxy = cxcywh_to_xyxy(target.boxes_cxcywh) * scale
    return Detections(boxes_xyxy, torch.ones(len(target.labels)), target.labels)


def _mosaic(
    path: Path, batch: Batch, found: list[Detections], names: dict[int, str], style: DrawStyle
) -> None:
    """Up to sixteen images in a square grid."""
    images = (batch.images[:MOSAIC_IMAGES] * 255).byte().permute(0, 2, 3, 1).numpy()
    tiles = [
        draw_boxes(np.ascontiguousarray(image[..., ::-1]), _boxes(one, image), names, style)
        for image, one in zip(images, found, strict=False)
    ]
    columns = int(np.ceil(np.sqrt(len(tiles))))
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    _write_jpeg(path, np.vstack(rows))


def _boxes(detections: Detections, image: Pixels) -> Boxes:
    columns = (detections.boxes_xyxy, detections.scores[:, None], detections.labels[:, None])
    return Boxes(torch.cat(columns, dim=1), (image.shape[0], image.shape[1]))


def _write_jpeg(path: Path, image: Pixels) -> None:
    scale = MOSAIC_SIDE / max(image.shape[:2])
    if scale < 1:
        size_wh = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        image = np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
    with atomic_write(path) as temporary:
        cv2.imwrite(str(temporary), image)

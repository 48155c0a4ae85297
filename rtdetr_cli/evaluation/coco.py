"""The twelve COCO metrics, equal to pycocotools, from detections added image by image.

hotcoco (Rust) computes them; matching.py computes precision and recall by confidence; metrics.py
holds the result.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import hotcoco
import numpy as np
from numpy.typing import NDArray

from rtdetr_cli.core.detections import Detections
from rtdetr_cli.core.errors import UsageError, WeightsError
from rtdetr_cli.core.status import counted
from rtdetr_cli.evaluation.box_metrics import BoxMetrics
from rtdetr_cli.evaluation.calibration import reliability
from rtdetr_cli.evaluation.confusion import ConfusionMatrix
from rtdetr_cli.evaluation.errors import ErrorCost, error_costs
from rtdetr_cli.evaluation.matching import (
    Found,
    Truth,
    confidence_curves,
    confusion_matrix,
    keep_best_per_class,
    match,
)
from rtdetr_cli.evaluation.metrics import STAT_NAMES, Metrics

MAX_DETECTIONS = 100
"""Detections per image and class that count in AP, best first (COCO's maxDets)."""


class CocoEvaluator:
    """Collect the detections of a split and compute their metrics.

    Args:
        ground_truth: COCO json as a dict: `images`, `annotations` (crowd boxes too), `categories`.
        category_ids: the category id of each class index 0..K-1.

    Attributes:
        names: class index to name.
    """

    def __init__(self, ground_truth: dict[str, Any], category_ids: Sequence[int]) -> None:
        self._ground_truth = _bare(ground_truth)
        self._category_ids = np.asarray(category_ids, dtype=np.int64)
        names = {category["id"]: category["name"] for category in ground_truth["categories"]}
        self.names = {index: names[number] for index, number in enumerate(category_ids)}
        self._image_ids = {image["id"] for image in ground_truth["images"]}
        self._rows: dict[int, NDArray[np.float64]] = {}

    def update(self, image_id: int, detections: Detections) -> None:
        """Add the detections of one image; a second call for the same image replaces the first.

        Raises:
            ValueError: the image is not in the ground truth.
            WeightsError: a box or a score is not finite.
            UsageError: the detector knows more classes than the data set.
        """
        if image_id not in self._image_ids:
            raise ValueError(f"image id {image_id} is not in the ground truth")
        boxes = np.asarray(detections.boxes_xyxy, np.float64)
        scores = np.asarray(detections.scores, np.float64)
        labels = np.asarray(detections.labels)
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise WeightsError(
                f"image id {image_id}: a box or a score is not a finite number, so the weights are "
                "damaged or the training has diverged"
            )
        if len(labels) and labels.max() >= len(self._category_ids):
            raise UsageError(
                f"the model detects class {labels.max()}, but the data set has only "
                f"{len(self._category_ids)} classes (0 to {len(self._category_ids) - 1})"
            )
        corners, sizes = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
        image_ids = np.full(len(labels), image_id)
        self._rows[image_id] = np.column_stack(
            [image_ids, corners, sizes, scores, self._category_ids[labels]]
        )

    @property
    def found(self) -> dict[int, NDArray[np.float64]]:
        """The added detections by image, to be passed to `merge` in another process."""
        return self._rows

    def merge(self, found: dict[int, NDArray[np.float64]]) -> None:
        """Add the detections of another evaluator of the same split."""
        self._rows |= found

    def predictions(self) -> list[dict[str, Any]]:
        """All detections as COCO results: image_id, category_id, bbox [x, y, w, h] px, score."""
        return [
            {
                "image_id": int(row[0]),
                "category_id": int(row[6]),
                "bbox": row[1:5].tolist(),
                "score": float(row[5]),
            }
            for rows in self._rows.values()
            for row in rows
        ]

    def compute(self) -> Metrics:
        """Compute the metrics; images without an update count as images without detections."""
        rows = self._all_rows()
        reads_id_0 = any(box["id"] == 0 for box in self._ground_truth["annotations"])
        engine = _run_pycocotools if reads_id_0 else _run_hotcoco
        stats, precision = engine(self._ground_truth, rows)
        columns = np.searchsorted(np.unique(self._known_ids()), self._category_ids)
        precision = precision[:, :, columns, 0, -1]
        precision[precision < 0] = np.nan

        truth, found = self._truth(), self._found(rows)
        counted = keep_best_per_class(found, MAX_DETECTIONS)
        matches = match(counted, truth)
        curves = confidence_curves(counted, truth, matches, len(self.names))
        box = BoxMetrics(
            stats=dict(zip(STAT_NAMES, map(float, stats), strict=True)),
            ap_by_iou=precision.mean(axis=1).T,
            precision_at_recall=precision[0].T,
            by_confidence=curves,
        )
        return Metrics(
            names=self.names,
            box=box,
            num_images=len(self._image_ids),
            confusion_matrix=ConfusionMatrix(
                confusion_matrix(found, truth, len(self.names)), self.names
            ),
            calibration=reliability(counted, truth, matches),
            remarks=self._remarks(reads_id_0, int(curves.instances.sum())),
        )

    def error_costs(self) -> list[ErrorCost]:
        """What each type of error costs in AP50; see errors.py."""
        return error_costs(_evaluated(self._ground_truth, self._all_rows()))

    def tables(self) -> tuple[Found, Truth]:
        """Detections and boxes of the split as flat arrays, images in order of their ids."""
        return self._found(self._all_rows()), self._truth()

    @property
    def image_ids(self) -> NDArray[np.int64]:
        """All image ids of the split, ascending."""
        return np.array(sorted(self._image_ids), dtype=np.int64)

    def _all_rows(self) -> NDArray[np.float64]:
        """(N, 7): image id, x, y, w, h, score, category id, images in order of their ids."""
        rows = [self._rows[image_id] for image_id in sorted(self._rows)]
        return np.concatenate(rows) if rows else np.zeros((0, 7))

    def _known_ids(self) -> list[int]:
        return [category["id"] for category in self._ground_truth["categories"]]

    def _class_of(self, category_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        order = np.argsort(self._category_ids)
        return order[np.searchsorted(self._category_ids, category_ids, sorter=order)]

    def _truth(self) -> Truth:
        known = set(self._category_ids.tolist())
        boxes = [box for box in self._ground_truth["annotations"] if box["category_id"] in known]
        return Truth(
            images=np.array([box["image_id"] for box in boxes], dtype=np.int64),
            classes=self._class_of(np.array([box["category_id"] for box in boxes], np.int64)),
            boxes_xywh=np.array([box["bbox"] for box in boxes], np.float64).reshape(-1, 4),
            crowd=np.array([box["iscrowd"] for box in boxes], dtype=np.bool_),
            areas=np.array([box["area"] for box in boxes], dtype=np.float64),
        )

    def _found(self, rows: NDArray[np.float64]) -> Found:
        return Found(
            images=rows[:, 0].astype(np.int64),
            classes=self._class_of(rows[:, 6].astype(np.int64)),
            boxes_xywh=rows[:, 1:5],
            scores=rows[:, 5],
        )

    def _remarks(self, reads_id_0: bool, instances: int) -> list[str]:
        remarks = []
        if not instances:
            remarks.append(
                f"no ground-truth box in {counted(len(self._image_ids), 'image')}, "
                "so AP is not defined"
            )
        if reads_id_0:
            remarks.append(
                "the ground truth has an annotation with id 0, which COCO's own evaluation counts "
                "as never found; number annotations from 1"
            )
        return remarks


def _bare(ground_truth: dict[str, Any]) -> dict[str, Any]:
    """Keep only the fields that box AP needs, so that no other field can fail in the engines."""
    annotations = [
        {
            "id": int(box["id"]),
            "image_id": box["image_id"],
            "category_id": box["category_id"],
            "bbox": [float(value) for value in box["bbox"]],
            "area": float(box.get("area", box["bbox"][2] * box["bbox"][3])),
            "iscrowd": int(box.get("iscrowd", 0)),
        }
        for box in ground_truth["annotations"]
    ]
    return {
        "images": [{"id": image["id"]} for image in ground_truth["images"]],
        "annotations": annotations,
        "categories": [
            {"id": category["id"], "name": str(category["name"])}
            for category in ground_truth["categories"]
        ],
    }


def _run_hotcoco(ground_truth: dict[str, Any], rows: NDArray[np.float64]) -> tuple[Any, Any]:
    """The twelve metrics and precision (T, R, K, areas, maxDets); bit-identical to pycocotools."""
    run = _evaluated(ground_truth, rows)
    run.accumulate()
    run.summary_lines()
    return run.stats, (run.eval or {})["precision"]


def _evaluated(ground_truth: dict[str, Any], rows: NDArray[np.float64]) -> hotcoco.COCOeval:
    truth = hotcoco.COCO(ground_truth)
    run = hotcoco.COCOeval(truth, truth.load_res(rows), "bbox")
    run.evaluate()
    return run


def _run_pycocotools(ground_truth: dict[str, Any], rows: NDArray[np.float64]) -> tuple[Any, Any]:
    """The same from pycocotools, 40 times slower, for ground truth with an annotation id 0.

    There 0 means "unmatched", so that box counts as missed and what finds it as false; published
    numbers have this quirk in them, hotcoco has not.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = COCO(), COCO()
    truth.dataset = ground_truth
    found.dataset = ground_truth | {
        "annotations": [
            {
                "id": number,
                "image_id": int(row[0]),
                "category_id": int(row[6]),
                "bbox": row[1:5].tolist(),
                "area": row[3] * row[4],
                "score": row[5],
            }
            for number, row in enumerate(rows, start=1)
        ]
    }
    with redirect_stdout(io.StringIO()):
        truth.createIndex()
        found.createIndex()
        run = COCOeval(truth, found, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats, run.eval["precision"]

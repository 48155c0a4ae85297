"""Result of a validation: accuracy (box_metrics.py), confusion matrix, counts and speed.

Built by coco.py, drawn by report.py, printed by engine/val.py.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rtdetr_cli.core.tables import Row, Table
from rtdetr_cli.evaluation.box_metrics import BoxMetrics, Floats, Ints
from rtdetr_cli.evaluation.calibration import Reliability
from rtdetr_cli.evaluation.confusion import ConfusionMatrix
from rtdetr_cli.evaluation.errors import ErrorCost

STAT_NAMES = (
    "AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl",
)  # fmt: skip
"""The twelve COCO metrics in the order of pycocotools."""

KEYS = ("metrics/precision(B)", "metrics/recall(B)", "metrics/mAP50(B)", "metrics/mAP50-95(B)")
"""Names of `mean_results`, those of Ultralytics."""

SUMMARY_COLUMNS = (
    *("Class", "Images", "Instances", "Box-P", "Box-R", "Box-F1"),
    *("mAP50", "mAP75", "mAP50-95"),
)
"""Names of Ultralytics for the columns of `Metrics.summary`."""

TABLE_COLUMNS = ("class", "images", "instances", "precision", "recall", "AP50", "AP", "best conf")


@dataclass(frozen=True)
class ClassRow:
    """One class of the per-class table; nan where the class has no ground truth.

    Attributes:
        name: of the class.
        images: how many hold it.
        instances: ground-truth boxes, crowds not counted.
        precision: at the confidence with the best mean F1, IoU 0.5.
        recall: likewise.
        ap50: AP at IoU 0.5.
        ap: AP over IoU 0.50:0.95.
        confidence: with the best F1 of this class alone, IoU 0.5.
    """

    name: str
    images: int
    instances: int
    precision: float
    recall: float
    ap50: float
    ap: float
    confidence: float


@dataclass(frozen=True)
class Difference:
    """One number of both detectors, 0..1; nan where no box counts.

    Attributes:
        name: a metric, or a class.
        a: of the first detector.
        b: of the second.
        difference: b - a.
        low: lower end of the 95 % interval of the difference.
        high: upper end.
    """

    name: str
    a: float
    b: float
    difference: float
    low: float
    high: float

    @property
    def is_shown(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def cells(self) -> tuple[str, ...]:
        """Name, a, b, difference and interval for a table, in points from 0 to 100."""
        plain = [_points(value, ".1f") for value in (self.a, self.b)]
        signed = [_points(value, "+.1f") for value in (self.difference, self.low, self.high)]
        return (self.name, *plain, *signed)


def _points(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(100 * value, form)


@dataclass(repr=False)
class Metrics(Table):
    """Result of `val`.

    Attributes:
        names: class index to name.
        box: the numbers.
        num_images: images in the split.
        confusion_matrix: predicted against true classes.
        calibration: how far the scores are from the precision.
        remarks: sentences a reader of the numbers must know; usually none.
        speed: milliseconds per image of preprocess, inference, loss (0) and postprocess, set by
            the engine.
        save_dir: the run folder; None if none is written.
        errors: types of errors and their cost; None unless asked for.
        baseline: differences from an earlier validation; None unless asked for.
    """

    names: dict[int, str]
    box: BoxMetrics
    num_images: int
    confusion_matrix: ConfusionMatrix
    calibration: Reliability
    remarks: list[str] = field(default_factory=list)
    speed: dict[str, float] = field(default_factory=dict)
    save_dir: Path | None = None
    errors: list[ErrorCost] | None = None
    baseline: list[Difference] | None = None

    task = "detect"
    columns = SUMMARY_COLUMNS

    @property
    def stats(self) -> dict[str, float]:
        """The twelve COCO metrics by name, -1 if undefined."""
        return self.box.stats

    @property
    def fitness(self) -> float:
        """The value that training maximises: AP."""
        return self.box.map

    @property
    def results_dict(self) -> dict[str, float]:
        """The summary under the keys of Ultralytics."""
        return {**dict(zip(KEYS, self.mean_results(), strict=True)), "fitness": self.fitness}

    @property
    def keys(self) -> list[str]:
        """Names of `mean_results`."""
        return list(KEYS)

    @property
    def maps(self) -> Floats:
        """(K,) AP of every class; `map` for a class without ground truth, see `BoxMetrics.maps`."""
        return self.box.maps

    @property
    def ap_class_index(self) -> Ints:
        """Class indices that have ground truth."""
        return self.box.ap_class_index

    @property
    def nt_per_class(self) -> Ints:
        """(K,) ground-truth boxes of each class, crowds not counted."""
        return self.box.by_confidence.instances

    @property
    def nt_per_image(self) -> Ints:
        """(K,) images that hold each class."""
        return self.box.by_confidence.images

    @property
    def curves(self) -> list[str]:
        """Names of `curves_results`."""
        return self.box.curves

    @property
    def curves_results(self) -> list[list[Any]]:
        """x, y of each class present, and the names of both axes, of each curve."""
        return self.box.curves_results

    def mean_results(self) -> list[float]:
        """Mean precision, mean recall, AP50, AP."""
        return self.box.mean_results()

    def class_result(self, i: int) -> tuple[float, float, float, float]:
        """Precision, recall, AP50 and AP of the class `ap_class_index[i]`."""
        return self.box.class_result(i)

    def summary(self, normalize: bool = False, decimals: int = 5) -> list[Row]:
        """One row per class that has ground truth, under the column names of Ultralytics.

        Args:
            normalize: has no effect, the numbers are in 0..1.
            decimals: digits after the decimal point.
        """
        box = self.box
        values = np.stack([box.p, box.r, box.f1, *box.all_ap[:, [0, 5]].T, box.ap], axis=1)
        counts = zip(self.nt_per_image.tolist(), self.nt_per_class.tolist(), strict=True)
        named = [(name, *count) for name, count in zip(self.names.values(), counts, strict=True)]
        return [
            dict(zip(self.columns, (*named[index], *row), strict=True))
            for index, row in zip(box.ap_class_index, values.round(decimals).tolist(), strict=True)
        ]

    def __repr__(self) -> str:
        """Short, because notebooks print the last value."""
        numbers = ", ".join(f"{name}={self.stats[name]:.4f}" for name in STAT_NAMES[:3])
        return f"Metrics({numbers}, {self.num_images} images, save_dir={self.save_dir})"

    def value(self, name: str) -> float:
        """One of the twelve COCO metrics, `precision`, `recall` or `ECE`; nan if undefined."""
        others = {"precision": self.box.mp, "recall": self.box.mr, "ECE": self.calibration.ece}
        value = others[name] if name in others else self.stats[name]
        return math.nan if value < 0 else value

    @property
    def per_class(self) -> list[ClassRow]:
        """One row per class, with or without ground truth."""
        curves = self.box.by_confidence
        return [
            ClassRow(
                name=name,
                images=int(curves.images[index]),
                instances=int(curves.instances[index]),
                precision=float(curves.precision[index, curves.best]),
                recall=float(curves.recall[index, curves.best]),
                ap50=float(self.box.ap_by_iou[index, 0]),
                ap=float(self.box.ap_per_class[index]),
                confidence=float(curves.best_confidence_per_class[index]),
            )
            for index, name in self.names.items()
        ]

    def table(self) -> list[tuple[str, ...]]:
        """Rows for TABLE_COLUMNS: all classes together, then each class that has boxes."""
        instances = int(self.nt_per_class.sum())
        best = self.box.by_confidence.best_confidence if instances else math.nan
        precision, recall, ap50, ap = self.box.mean_results()
        rows = [ClassRow("all", self.num_images, instances, precision, recall, ap50, ap, best)]
        rows += [row for row in self.per_class if row.instances]
        return [
            (
                row.name,
                str(row.images),
                str(row.instances),
                *map(_text, (row.precision, row.recall, row.ap50, row.ap, row.confidence)),
            )
            for row in rows
        ]

    def to_dict(self) -> dict[str, Any]:
        """All but the curves, for JSON: undefined values are None."""
        plain = {
            "stats": self.stats,
            "precision": self.box.mp,
            "recall": self.box.mr,
            "confidence": self.box.by_confidence.best_confidence,
            "calibration": self.calibration.to_dict(),
            "num_images": self.num_images,
            "per_class": [asdict(row) for row in self.per_class],
            "speed_ms": self.speed,
            "remarks": self.remarks,
        }
        more = {"errors": self.errors, "baseline": self.baseline}
        plain |= {key: [asdict(one) for one in rows] for key, rows in more.items() if rows}
        result: dict[str, Any] = without_nan(plain)
        return result


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def without_nan(value: Any) -> Any:  # noqa: ANN401  (any JSON value)
    """Replace NaN, which JSON lacks, by None, also inside lists and dicts."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value

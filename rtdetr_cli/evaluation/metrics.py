"""Result of a validation: the twelve COCO metrics, and those that Ultralytics reports.

Built by coco.py, drawn by report.py, printed by engine/val.py.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdetr_cli.evaluation.matching import Curves

STAT_NAMES = (
    "AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl",
)  # fmt: skip
"""The twelve COCO metrics in the order of pycocotools."""

TABLE_COLUMNS = ("class", "images", "instances", "precision", "recall", "AP50", "AP")

Floats = NDArray[np.float64]


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
    """

    name: str
    images: int
    instances: int
    precision: float
    recall: float
    ap50: float
    ap: float


@dataclass(frozen=True)
class BoxMetrics:
    """Box accuracy under the names of Ultralytics; nan where there is no ground truth.

    Attributes:
        stats: COCO's twelve numbers by name, -1 where undefined, as pycocotools has it.
        maps: (K,) AP 0.50:0.95 of every class.
        maps50: (K,) AP at IoU 0.5 of every class.
        precision_at_recall: (K, 101) at IoU 0.5, for recall 0, 0.01, ... 1.
        curves: over confidence.
    """

    stats: dict[str, float]
    maps: Floats
    maps50: Floats
    precision_at_recall: Floats
    curves: Curves

    @property
    def map(self) -> float:
        """AP over IoU 0.50:0.95."""
        return self._stat("AP")

    @property
    def map50(self) -> float:
        """AP at IoU 0.5."""
        return self._stat("AP50")

    @property
    def map75(self) -> float:
        """AP at IoU 0.75."""
        return self._stat("AP75")

    @property
    def ap_class_index(self) -> NDArray[np.int64]:
        """Class indices that have ground truth; the order of `p`, `r`, `f1`, `ap` and `ap50`."""
        return self.curves.present

    @property
    def p(self) -> Floats:
        """Precision of each class present, at IoU 0.5 and the confidence with the best mean F1."""
        return self._at_best(self.curves.precision)

    @property
    def r(self) -> Floats:
        """Recall of each class present, likewise."""
        return self._at_best(self.curves.recall)

    @property
    def f1(self) -> Floats:
        """F1 of each class present, likewise."""
        return self._at_best(self.curves.f1)

    @property
    def ap(self) -> Floats:
        """AP of each class present."""
        return self.maps[self.ap_class_index]

    @property
    def ap50(self) -> Floats:
        """AP at IoU 0.5 of each class present."""
        return self.maps50[self.ap_class_index]

    @property
    def mp(self) -> float:
        """Mean of `p`."""
        return _mean(self.p)

    @property
    def mr(self) -> float:
        """Mean of `r`."""
        return _mean(self.r)

    def mean_results(self) -> list[float]:
        """Mean precision, mean recall, AP50, AP."""
        return [self.mp, self.mr, self.map50, self.map]

    def _at_best(self, values: Floats) -> Floats:
        """Select from (K, S) the classes present, at the confidence with the best mean F1."""
        present: Floats = values[self.ap_class_index, self.curves.best]
        return present

    def _stat(self, name: str) -> float:
        return math.nan if self.stats[name] < 0 else self.stats[name]


@dataclass
class Metrics:
    """Result of `val`.

    Attributes:
        names: class index to name.
        box: the numbers.
        num_images: images in the split.
        confusion_matrix: (K+1, K+1) counts; rows true, columns detected, last is background.
        remarks: sentences a reader of the numbers must know; usually none.
        speed: milliseconds per image of preprocess, inference and postprocess, set by the engine.
    """

    names: dict[int, str]
    box: BoxMetrics
    num_images: int
    confusion_matrix: NDArray[np.int64]
    remarks: list[str] = field(default_factory=list)
    speed: dict[str, float] = field(default_factory=dict)

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
        return {
            "metrics/precision(B)": self.box.mp,
            "metrics/recall(B)": self.box.mr,
            "metrics/mAP50(B)": self.box.map50,
            "metrics/mAP50-95(B)": self.box.map,
            "fitness": self.fitness,
        }

    @property
    def per_class(self) -> list[ClassRow]:
        """One row per class, with or without ground truth."""
        curves = self.box.curves
        return [
            ClassRow(
                name=name,
                images=int(curves.images[index]),
                instances=int(curves.instances[index]),
                precision=float(curves.precision[index, curves.best]),
                recall=float(curves.recall[index, curves.best]),
                ap50=float(self.box.maps50[index]),
                ap=float(self.box.maps[index]),
            )
            for index, name in self.names.items()
        ]

    def table(self) -> list[tuple[str, ...]]:
        """Rows for TABLE_COLUMNS: all classes together, then each class that has boxes."""
        instances = int(self.box.curves.instances.sum())
        rows = [ClassRow("all", self.num_images, instances, *self.box.mean_results())]
        rows += [row for row in self.per_class if row.instances]
        return [
            (
                row.name,
                str(row.images),
                str(row.instances),
                *map(_text, (row.precision, row.recall, row.ap50, row.ap)),
            )
            for row in rows
        ]

    def to_dict(self) -> dict[str, Any]:
        """All but the curves, for JSON: undefined values are None."""
        plain = {
            "stats": self.stats,
            "precision": self.box.mp,
            "recall": self.box.mr,
            "confidence": self.box.curves.best_confidence,
            "num_images": self.num_images,
            "per_class": [asdict(row) for row in self.per_class],
            "speed_ms": self.speed,
            "remarks": self.remarks,
        }
        result: dict[str, Any] = _without_nan(plain)
        return result


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _without_nan(value: Any) -> Any:  # noqa: ANN401  (any JSON value)
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value

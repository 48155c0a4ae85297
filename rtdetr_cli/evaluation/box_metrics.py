"""Box accuracy of a validation: the twelve COCO metrics, and those that Ultralytics reports.

coco.py and matching.py compute the arrays; metrics.py adds the confusion matrix, counts and speed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdetr_cli.evaluation.matching import CONFIDENCES, Curves

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CURVES = (
    ("Precision-Recall(B)", "Recall", "Precision"),
    ("F1-Confidence(B)", "Confidence", "F1"),
    ("Precision-Confidence(B)", "Confidence", "Precision"),
    ("Recall-Confidence(B)", "Confidence", "Recall"),
)
"""Names of Ultralytics for the curves, with their x and y axes."""


@dataclass(frozen=True)
class BoxMetrics:
    """Box accuracy under the names of Ultralytics; nan where there is no ground truth.

    P classes of the K have ground truth; T IoU thresholds 0.50, 0.55, ... 0.95; S confidences.

    Attributes:
        stats: COCO's twelve numbers by name, -1 where undefined, as pycocotools has it.
        ap_by_iou: (K, T) AP of every class.
        precision_at_recall: (K, 101) at IoU 0.5, for recall 0, 0.01, ... 1.
        by_confidence: precision, recall and F1 of every class.
    """

    stats: dict[str, float]
    ap_by_iou: Floats
    precision_at_recall: Floats
    by_confidence: Curves

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
    def ap_per_class(self) -> Floats:
        """(K,) AP of every class, nan where it has no ground truth."""
        return _row_means(self.ap_by_iou)

    @property
    def maps(self) -> Floats:
        """(K,) AP of every class; as in Ultralytics a class without ground truth has `map`.

        Their mean is then `map`. `ap_per_class` and the tables have no number for such a class.
        """
        return np.where(np.isnan(self.ap_per_class), self.map, self.ap_per_class)

    @property
    def ap_class_index(self) -> Ints:
        """Class indices that have ground truth; the order of `p`, `r`, `f1`, `ap` and `ap50`."""
        return self.by_confidence.present

    @property
    def p(self) -> Floats:
        """Precision of each class present, at IoU 0.5 and the confidence with the best mean F1."""
        return self._at_best(self.by_confidence.precision)

    @property
    def r(self) -> Floats:
        """Recall of each class present, likewise."""
        return self._at_best(self.by_confidence.recall)

    @property
    def f1(self) -> Floats:
        """F1 of each class present, likewise."""
        return self._at_best(self.by_confidence.f1)

    @property
    def all_ap(self) -> Floats:
        """(P, T) AP of each class present at each IoU threshold."""
        return self.ap_by_iou[self.ap_class_index]

    @property
    def ap(self) -> Floats:
        """(P,) AP of each class present."""
        return _row_means(self.all_ap)

    @property
    def ap50(self) -> Floats:
        """(P,) AP at IoU 0.5 of each class present."""
        return self.all_ap[:, 0]

    @property
    def nc(self) -> int:
        """Number of classes K, present or not."""
        return len(self.ap_by_iou)

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

    def class_result(self, i: int) -> tuple[float, float, float, float]:
        """Precision, recall, AP50 and AP of the class `ap_class_index[i]`."""
        return float(self.p[i]), float(self.r[i]), float(self.ap50[i]), float(self.ap[i])

    def fitness(self) -> float:
        """The value that training maximises: AP."""
        return self.map

    @property
    def px(self) -> Floats:
        """(S,) x of all curves: 0 to 1, confidence or recall."""
        return CONFIDENCES

    @property
    def prec_values(self) -> Floats:
        """(P, S) precision at recall `px`, linear between COCO's 101 recall levels."""
        rows = self.precision_at_recall[self.ap_class_index]
        levels = np.linspace(0, 1, self.precision_at_recall.shape[1])
        return np.array([np.interp(self.px, levels, row) for row in rows]).reshape(-1, len(self.px))

    @property
    def f1_curve(self) -> Floats:
        """(P, S) F1 at confidence `px`."""
        return self.by_confidence.f1[self.ap_class_index]

    @property
    def p_curve(self) -> Floats:
        """(P, S) precision at confidence `px`."""
        return self.by_confidence.precision[self.ap_class_index]

    @property
    def r_curve(self) -> Floats:
        """(P, S) recall at confidence `px`."""
        return self.by_confidence.recall[self.ap_class_index]

    @property
    def curves(self) -> list[str]:
        """Names of `curves_results`."""
        return [name for name, _, _ in CURVES]

    @property
    def curves_results(self) -> list[list[Any]]:
        """`px`, (P, S) values, name of x and name of y of each curve."""
        values = (self.prec_values, self.f1_curve, self.p_curve, self.r_curve)
        return [[self.px, y, *axes] for y, (_, *axes) in zip(values, CURVES, strict=True)]

    def _at_best(self, values: Floats) -> Floats:
        """Select from (K, S) the classes present, at the confidence with the best mean F1."""
        present: Floats = values[self.ap_class_index, self.by_confidence.best]
        return present

    def _stat(self, name: str) -> float:
        return math.nan if self.stats[name] < 0 else self.stats[name]


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def _row_means(values: Floats) -> Floats:
    means: Floats = values.mean(axis=1)
    return means

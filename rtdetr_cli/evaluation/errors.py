"""What each type of error costs in AP50: TIDE (Bolya et al. 2020, arXiv 2008.08115), from hotcoco.

The cost of a type is the rise of AP50 if all its errors were mended and the others stayed; the
costs do not add up to what is missing, because one error can hide another.
"""

from __future__ import annotations

from dataclasses import dataclass

import hotcoco

KINDS = {
    "Cls": "classification: right place, wrong class",
    "Loc": "localisation: right class, IoU 0.1 to 0.5",
    "Both": "both: wrong class and IoU 0.1 to 0.5",
    "Dupe": "duplicate: the box is found already, with a higher score",
    "Bkg": "background: no box near, IoU below 0.1",
    "Miss": "missed: a box that nothing above explains",
}
"""Name of hotcoco and meaning of each type, in the order of the paper."""
ADVICE = (
    "more examples of the classes that the confusion matrix mixes up",
    "tighter labels, larger imgsz",
    "as for both above",
    "longer training, all decoder layers",
    "images without objects, missing labels (rtdetr check)",
    "more examples, larger imgsz",
)
"""What often helps against each type, in the same order."""


@dataclass(frozen=True)
class ErrorCost:
    """One type of error.

    Attributes:
        kind: name and meaning.
        count: detections, or boxes for `missed`.
        cost: rise of AP50, 0..1, if they were mended.
    """

    kind: str
    count: int
    cost: float


def error_costs(run: hotcoco.COCOeval) -> list[ErrorCost]:
    """The six types of errors.

    Args:
        run: after `evaluate`.
    """
    found = run.tide_errors()
    return [
        ErrorCost(meaning, int(found["counts"][name]), float(found["delta_ap"][name]))
        for name, meaning in KINDS.items()
    ]

"""What `rtdetr val calibrate=true` stores in a file: how to read its scores, and thresholds.

Ours has it under `calibration`; exported files have it in their notes. The scores of the network
are not changed: `rtdetr predict conf=auto` applies it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from rtdetr_cli.config.dataset import SPLITS
from rtdetr_cli.config.fields import CountFromZero, FieldError, Fraction, OneOf, Range, build
from rtdetr_cli.weights.safe_pickle import Inert

MAX_DATA = 200
"""Characters of the name of a data set."""
_EDGE = 1e-6
"""As in evaluation/calibration.py."""


@dataclass(frozen=True)
class Calibration:
    """Probability of a detection from its score, and the threshold of each class."""

    temperature: Annotated[float, Range(0.01, 100)]
    """The logit of a score is divided by it."""
    offset: Annotated[float, Range(-100, 100)]
    """Added to the logit after that."""
    thresholds: tuple[Fraction, ...]
    """By class index: the score of the network above which detections are kept."""
    data: str
    """Name of the data set it was measured on, for display."""
    split: Annotated[str, OneOf(SPLITS)]
    images: CountFromZero
    """Of that split."""
    boxes: CountFromZero
    """Of that split."""

    def probabilities(self, scores: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """The share of detections with such a score that match a box, for scores in 0..1."""
        inside = np.clip(scores.astype(np.float64), _EDGE, 1 - _EDGE)
        logits = np.log(inside / (1 - inside)) / self.temperature + self.offset
        return np.asarray(1 / (1 + np.exp(-logits)), scores.dtype)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as files store them; `parse_calibration` is the inverse."""
        return {**asdict(self), "thresholds": list(self.thresholds)}

    def describe(self) -> str:
        """One line: the two numbers and where they come from."""
        return (
            f"temperature {self.temperature:.3f}, offset {self.offset:+.3f}, from {self.data} "
            f"{self.split}: {self.images} images, {self.boxes} boxes"
        )


def parse_calibration(values: Inert, num_classes: int) -> Calibration:
    """Parse the record of an untrusted file.

    Raises:
        ValueError: a value is missing, of the wrong type or out of range.
    """
    if isinstance(values, dict):
        keys = (one.name for one in fields(Calibration))
        values = {key: values[key] for key in keys if key in values}
    try:
        found = build(Calibration, values)
    except FieldError as error:
        key = f"calibration.{error.key}".rstrip(".")
        raise ValueError(f"{key} {error.complaint}") from None
    if len(found.thresholds) != num_classes:
        raise ValueError(
            f"its calibration has {len(found.thresholds)} thresholds for {num_classes} classes"
        )
    if len(found.data) > MAX_DATA or not found.data.isprintable():
        raise ValueError("the data set of its calibration has no plain name")
    return found

"""Finding: one kind of problem of a data set, with examples and what to do about it.

Made by data/checks/ and evaluation/label_errors.py, printed by engine/check.py, drawn by report/.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

MAX_EXAMPLES = 20
"""Examples that a finding keeps; `count` is the number of all."""


class Severity(Enum):
    """How much a finding matters, the worst first."""

    ERROR = "error"
    """`rtdetr train` and `val` refuse it."""
    WARNING = "warning"
    """It is accepted, and probably harms the result."""
    NOTE = "note"
    """It is corrected on reading, or worth knowing."""


@dataclass(frozen=True)
class MarkedBox:
    """A box to draw on the image of an example.

    Attributes:
        corners: left, top, right, bottom in pixels of the upright image.
        caption: class, and what else is to be read beside it.
        is_suspect: whether the finding is about it; other boxes are context.
    """

    corners: tuple[float, float, float, float]
    caption: str
    is_suspect: bool = True


@dataclass(frozen=True)
class Example:
    """One place where a finding applies.

    Attributes:
        where: file and line, object or annotation, e.g. `labels/train/7.txt:3`.
        what: what is there, in a few words; empty if the finding says all.
        images: files to show, one, or the two of a pair; none for an image that cannot be decoded.
        boxes: to draw on the first image.
    """

    where: str
    what: str = ""
    images: tuple[Path, ...] = ()
    boxes: tuple[MarkedBox, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One kind of problem in one split, or between splits.

    Attributes:
        id: stable name in words joined by hyphens, e.g. `box-outside-image`.
        severity: how much it matters.
        splits: where it was found, one split, or those that it is between.
        message: one sentence on what was found.
        count: number of places.
        examples: the first MAX_EXAMPLES, or the worst where there is an order.
        advice: one sentence on what to do.
    """

    id: str
    severity: Severity
    splits: tuple[str, ...]
    message: str
    count: int
    examples: tuple[Example, ...]
    advice: str

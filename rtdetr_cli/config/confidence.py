"""The value of `conf=` in prediction: a number, `auto`, or `person:0.5,car:0.3`."""

from __future__ import annotations

from rtdetr_cli.core.bounded_text import show
from rtdetr_cli.core.errors import UsageError

AUTO = "auto"


def parse_confidence(text: str) -> dict[str, float] | None:
    """Read thresholds per class.

    Args:
        text: `auto`, or names or indices of classes with a threshold each.

    Returns:
        Name or index to threshold; None for `auto`.

    Raises:
        UsageError: another form, a threshold outside 0 to 1, or a class named twice.
    """
    if text == AUTO:
        return None
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.rpartition(":"))
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not name or not 0 <= value <= 1:
            raise UsageError(
                "predict: conf must be a number from 0 to 1, auto, or thresholds by class like "
                f"person:0.5,car:0.3, found {show(text)}"
            )
        if name in found:
            raise UsageError(f"predict: conf names {show(name)} twice")
        found[name] = value
    return found

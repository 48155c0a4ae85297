"""Validate the metadata of an untrusted checkpoint."""

from __future__ import annotations

from rtdetr_cli.config.fields import MAX_SIDE
from rtdetr_cli.core.errors import printable

MAX_COUNT = 2**16
"""Limit for numbers of queries, heads and layers."""


def class_names(names: object) -> dict[int, str] | None:
    """Printable names by index; None unless they are strings for exactly 0, 1, 2..."""
    if isinstance(names, list | tuple):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(type(index) is int for index in names):
        return None
    ordered = dict(sorted(names.items(), key=lambda item: int(item[0])))
    if list(ordered) != list(range(len(ordered))):
        return None
    if not all(isinstance(name, str) for name in ordered.values()):
        return None
    return {index: printable(name, 200) for index, name in ordered.items()}


def count(value: object) -> int | None:
    """A count of at least 1; None if invalid."""
    return value if type(value) is int and 0 < value <= MAX_COUNT else None


def norm_eps(value: object) -> float | None:
    """The epsilon of a norm; None if invalid."""
    return value if isinstance(value, float) and 0 < value < 1 else None


def input_size(imgsz: object) -> tuple[int, int] | None:
    """Height and width, rounded up to multiples of 32 as in Ultralytics; None if invalid."""
    sides = [imgsz, imgsz] if isinstance(imgsz, int) else imgsz
    match sides:
        case [int(height), int(width)] if 0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE:
            return -(-height // 32) * 32, -(-width // 32) * 32
    return None

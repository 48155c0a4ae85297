"""The conditions of `fail_if=`: `AP<0.45`, several separated by commas."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from rtdetr_cli.core.bounded_text import show
from rtdetr_cli.core.errors import UsageError, nearest

METRICS = (
    *("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
    *("precision", "recall", "ECE"),
)
_CONDITION = re.compile(r"\s*(\w{1,20})\s*(<=|<|>=|>)\s*(\d*\.?\d+)\s*")


class Condition(NamedTuple):
    """A metric, `<`, `<=`, `>` or `>=`, and a limit in 0..1."""

    metric: str
    sign: str
    limit: float

    def holds(self, value: float) -> bool:
        """Whether a value meets the condition; an undefined one (nan) meets every condition."""
        beyond = value < self.limit if self.sign[0] == "<" else value > self.limit
        return beyond or math.isnan(value) or ("=" in self.sign and value == self.limit)


def parse_conditions(text: str) -> list[Condition]:
    """Read the value of `fail_if=`.

    Raises:
        UsageError: another form, an unknown metric or a limit above 1.
    """
    return [_parse(part) for part in text.split(",")]


def _parse(text: str) -> Condition:
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise UsageError(
            f"val: fail_if must be like AP<0.45 or AP<0.45,recall<0.9, found {show(text)}"
        )
    name, sign, number = found.groups()
    metric = {known.lower(): known for known in METRICS}.get(name.lower())
    if metric is None:
        hint = nearest(name, METRICS) or f"; metrics are {', '.join(METRICS)}"
        raise UsageError(f"val: fail_if: {name} is not a metric{hint}")
    if float(number) > 1:
        raise UsageError(f"val: fail_if: {metric} is from 0 to 1, found {number}")
    return Condition(metric, sign, float(number))

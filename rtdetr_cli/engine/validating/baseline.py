"""An earlier validation to compare with (`baseline=`), and the conditions of `fail_if=`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from rtdetr_cli.config.conditions import parse_conditions
from rtdetr_cli.core.bounded_text import UnreadableFileError, parse_json, read_bounded, show
from rtdetr_cli.core.console import say, table, warn
from rtdetr_cli.core.errors import DataError, QualityError
from rtdetr_cli.core.files import user_path
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.engine.validating.prediction_file import read_predictions
from rtdetr_cli.evaluation.coco import CocoEvaluator
from rtdetr_cli.evaluation.comparison import compare
from rtdetr_cli.evaluation.metrics import Difference, Metrics
from rtdetr_cli.evaluation.resampling import METRICS

RESAMPLES = 1000
COLUMNS = ("AP in points", "baseline", "this", "difference", "95 % from", "to")

Baseline = dict[str, float] | CocoEvaluator
"""Metrics by name, or detections."""


def read_baseline(file: str, dataset: DetectionDataset) -> Baseline:
    """Read the output of `rtdetr val json=true`, or a predictions.json of the same split.

    Raises:
        DataError: the file is neither.
    """
    path = user_path(file)
    if path.is_file() and _first_character(path) == "[":
        return read_predictions(path, dataset)
    content = _read_json(path)
    stats = content.get("stats") if isinstance(content, dict) else None
    if not isinstance(stats, dict) or not all(_is_metric(stats.get(name)) for name in METRICS):
        raise DataError(
            f"baseline {path} is neither the output of `rtdetr val json=true`, with AP and the "
            "other numbers under stats, nor a predictions.json"
        )
    count = content.get("num_images")
    if count != len(dataset):
        warn(f"the baseline is of {show(count)} images, this split has {len(dataset)}")
    return {name: math.nan if stats[name] < 0 else float(stats[name]) for name in METRICS}


def differences(baseline: Baseline, metrics: Metrics, evaluator: CocoEvaluator) -> list[Difference]:
    """The differences from the baseline; their intervals need its detections and are nan else."""
    if isinstance(baseline, CocoEvaluator):
        return compare(baseline, evaluator, RESAMPLES, seed=0).metrics
    pairs = [(name, baseline[name], metrics.value(name)) for name in METRICS]
    return [Difference(name, a, b, b - a, math.nan, math.nan) for name, a, b in pairs]


def print_differences(found: list[Difference]) -> None:
    """Print the differences from the baseline to stdout."""
    table("", COLUMNS, [one.cells() for one in found])
    if all(math.isnan(one.low) for one in found):
        say(
            "these differences have no interval, which needs the detections of the baseline: give "
            "its predictions.json (`rtdetr val save_json`)"
        )


def refuse_quality(conditions: str, metrics: Metrics) -> None:
    """Check the conditions of `fail_if=`.

    Raises:
        QualityError: a metric meets one, or is not defined.
    """
    met = [
        f"{one.metric} is {metrics.value(one.metric):.4f} ({one.metric}{one.sign}{one.limit:g})"
        for one in parse_conditions(conditions)
        if one.holds(metrics.value(one.metric))
    ]
    if met:
        raise QualityError(f"fail_if: {', '.join(met)}")


def _first_character(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(64).decode("utf-8-sig", errors="replace").lstrip()[:1]


def _read_json(path: Path) -> Any:  # noqa: ANN401  (any JSON value)
    try:
        return parse_json(read_bounded(path))
    except UnreadableFileError as error:
        raise DataError(f"baseline {path} {error}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"baseline {path}:{error.lineno}: broken json, {error.msg}") from None


def _is_metric(value: object) -> bool:
    return type(value) in {int, float} and -1 <= value <= 1  # type: ignore[operator]

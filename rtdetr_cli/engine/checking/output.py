"""Print the findings of `rtdetr check`: as text, or as JSON with all examples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rtdetr_cli.core.console import result, result_json, table
from rtdetr_cli.core.findings import Example, Finding, Severity
from rtdetr_cli.core.status import counted
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.engine.checking.label_suspects import Suspect

Splits = dict[str, DetectionDataset]
_NUM_SHOWN = {Severity.ERROR: 20, Severity.WARNING: 5, Severity.NOTE: 3}
"""Examples in the text output; JSON has all that a finding keeps."""


def print_json(
    data: str, splits: Splits, findings: list[Finding], suspects: Sequence[Suspect] = ()
) -> None:
    """Print the counts of each split, all findings and all suspected label errors to stdout."""
    content = {
        "data": data,
        "splits": {split: _counts(dataset) for split, dataset in splits.items()},
        "findings": [_as_dict(one) for one in findings],
        "suspected_label_errors": [
            {"id": one.kind.value, "score": one.score, "split": one.split}
            | _example_as_dict(one.example)
            for one in suspects
        ],
        **{f"{one.value}s": _number(findings, one) for one in Severity},
    }
    result_json(json.dumps(content))


def print_text(splits: Splits, findings: list[Finding]) -> None:
    """Print a table of images and boxes, and the findings in their order."""
    if splits:
        table("", ["", *splits], count_rows(splits))
    for finding in findings:
        result("", *_lines(finding))
    result("", summary(findings))


def count_rows(splits: Splits) -> list[list[str]]:
    """Rows of a table: images, images without boxes, and boxes of each class, of each split."""
    counts = [_counts(dataset) for dataset in splits.values()]
    rows = [
        ["images", *(str(one["images"]) for one in counts)],
        ["without boxes", *(str(one["images_without_boxes"]) for one in counts)],
    ]
    names = dict.fromkeys(name for one in counts for name in one["boxes"])
    return rows + [[name, *(str(one["boxes"].get(name, "")) for one in counts)] for name in names]


def summary(findings: list[Finding]) -> str:
    """`1 error, 2 warnings, 0 notes`: kinds of problems, not their places."""
    return ", ".join(counted(_number(findings, one), one.value) for one in Severity)


def _number(findings: list[Finding], severity: Severity) -> int:
    return sum(one.severity is severity for one in findings)


def _lines(finding: Finding) -> list[str]:
    splits = f" ({', '.join(finding.splits)})" if finding.splits else ""
    severity = finding.severity.value.capitalize()
    lines = [f"{severity} {finding.id}{splits}: {finding.count}. {finding.message}"]
    shown = finding.examples[: _NUM_SHOWN[finding.severity]]
    lines += [f"  {one.where}{one.what and f': {one.what}'}" for one in shown]
    if finding.count > len(shown) > 0:
        lines.append(f"  ... and {finding.count - len(shown)} more")
    return [*lines, f"  To do: {finding.advice}"]


def _counts(dataset: DetectionDataset) -> dict[str, Any]:
    """Images, images without boxes, and boxes of each class, without crowd regions."""
    boxes: Counter[int] = Counter()
    for record in dataset.records:
        boxes.update(record.labels[~record.iscrowd].tolist())
    return {
        "images": len(dataset),
        "images_without_boxes": sum(not len(record.labels) for record in dataset.records),
        "boxes": {name: boxes[index] for index, name in dataset.names.items()},
        "images_left_out": {str(path): reason for path, reason in dataset.skipped.items()},
    }


def _as_dict(finding: Finding) -> dict[str, Any]:
    return {
        "id": finding.id,
        "severity": finding.severity.value,
        "splits": list(finding.splits),
        "count": finding.count,
        "message": finding.message,
        "advice": finding.advice,
        "examples": [_example_as_dict(one) for one in finding.examples],
    }


def _example_as_dict(example: Example) -> dict[str, Any]:
    return {
        "where": example.where,
        "what": example.what,
        "images": [str(path) for path in example.images],
        "boxes": [
            {"corners": list(box.corners), "caption": box.caption, "is_suspect": box.is_suspect}
            for box in example.boxes
        ],
    }

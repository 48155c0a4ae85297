"""Warnings about labels before training: the part of `rtdetr check` that decodes no image."""

from __future__ import annotations

from rtdetr_cli.core.console import warn
from rtdetr_cli.core.findings import Severity
from rtdetr_cli.core.status import counted
from rtdetr_cli.data.checks.labels import check_labels
from rtdetr_cli.data.checks.splits import check_splits
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.kinds import ranked

MAX_LINES = 5
"""Warnings that are printed; a data set with more needs `rtdetr check` anyway."""


def warn_of_labels(
    data: str,
    splits: dict[str, DetectionDataset | None],
    size_hw: tuple[int, int],
    num_queries: int,
) -> None:
    """Print a line per kind of problem that probably harms the training.

    Args:
        data: the setting `data`, for the command that shows all.
        splits: opened splits by name; None: not used.
        size_hw: height and width of the input of the network.
        num_queries: of the network.
    """
    opened = {split: dataset for split, dataset in splits.items() if dataset is not None}
    findings = ranked([*check_labels(opened, size_hw, num_queries), *check_splits(opened)])
    found = [one for one in findings if one.severity is Severity.WARNING]
    for one in found[:MAX_LINES]:
        first = one.examples[0]
        place = f"{first.where}{first.what and f' ({first.what})'}"
        warn(f"{one.id} ({', '.join(one.splits)}): {one.count}. {one.message} First: {place}")
    if found:
        more = counted(len(found) - MAX_LINES, "more kind") if len(found) > MAX_LINES else "all"
        warn(f"`rtdetr check data={data}` lists {more}")
